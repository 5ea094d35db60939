"""Arithmetic, word problems, units, dates, sorting."""

import datetime

from .item import Item, is_held_out, pick, same
from .words import (BOXES, MONTH_DAYS, MONTHS, NAMES, SORT_WORDS, THINGS, WEEKDAYS)

PLACES = ["Ones", "Tens", "Hundreds", "Thousands", "Ten thousands", "Hundred thousands"]


def columns(a, b, op):
    """Column by column from the right: (terms as written, value, digit, carry) of a+b or a-b or a*b with b < 10."""
    left = [int(d) for d in reversed(str(a))]
    right = [int(d) for d in reversed(str(b))]
    if op == "*":
        right = right * len(left)
    width = max(len(left), len(right))
    left += [0] * (width - len(left))
    right += [0] * (width - len(right))
    carry = 0
    for x, y in zip(left, right):
        if op == "-":
            borrow = 1 if x - carry < y else 0
            terms = f"{x + 10 * borrow}-{y}" + ("-1" if carry else "")
            value = x + 10 * borrow - y - carry
            carry = borrow
            yield terms, value, value, borrow
        else:
            value = (x + y if op == "+" else x * y) + carry
            if op == "*" and carry:  # a product of the table, then a sum: neither is more than a lookup
                terms = f"{x}*{y}={x * y}, {x * y}+{carry}"
            else:
                terms = f"{x}{op}{y}" + (f"+{carry}" if carry else "")
            carry = value // 10
            yield terms, value, value % 10, carry


def column_thoughts(a, b, op, result):
    steps = list(columns(a, b, op))
    medium = ", ".join(f"{terms}={value}" for terms, value, _, _ in steps) + f", so {result}"
    width = len(steps)
    spell = lambda n: " ".join(reversed(str(n).zfill(width)))
    high = f"From the right: {spell(a)}" + (f" and {spell(b)}. " if op != "*" else f" times {b}. ")
    so_far = ""
    for i, (terms, value, digit, carry) in enumerate(steps):
        last = i + 1 == width
        so_far = (str(value) if last else str(digit)) + so_far
        word = "borrow" if op == "-" else "carry"
        high += f"{PLACES[i]}: {terms}={value}, " + (f"{word} {carry}, " if carry and not last else "") + f"{so_far}. "
    return (f"{a}{op}{b}={result}", medium, high + f"So {result}")


ASK = {
    "+": ["What is {a}+{b}?", "{a}+{b}", "{a} + {b} = ?", "What is {a} plus {b}?", "Add {a} and {b}.",
          "Calculate {a} + {b}.", "What is the sum of {a} and {b}?", "How much is {a} + {b}?"],
    "-": ["What is {a}-{b}?", "{a}-{b}", "{a} - {b} = ?", "What is {a} minus {b}?", "Subtract {b} from {a}.",
          "Calculate {a} - {b}.", "How much is {a} - {b}?"],
    "*": ["What is {a}*{b}?", "{a}*{b}", "{a} * {b} = ?", "What is {a} times {b}?", "Multiply {a} by {b}.",
          "Calculate {a} * {b}.", "How much is {a} * {b}?"],
    "/": ["What is {a}/{b}?", "{a}/{b}", "What is {a} divided by {b}?", "Divide {a} by {b}.", "Calculate {a} / {b}."],
}


def arithmetic(rng):
    op = rng.choice("++--**/")
    if op == "*":
        a, b = rng.randint(2, 12), rng.randint(2, 9)
        result = a * b
    elif op == "/":
        b, result = rng.randint(2, 9), rng.randint(2, 12)
        a = b * result
    else:
        a, b = (rng.randint(1, 99) if rng.random() < 0.8 else rng.randint(1, 20) for _ in range(2))
        if op == "-":
            a, b = max(a, b), min(a, b)
        result = a + b if op == "+" else a - b
    question = pick(rng, ASK[op], a=a, b=b)
    if op in "+-":
        _, medium, high = column_thoughts(a, b, op, str(result))
        thoughts = (medium.removesuffix(f", so {result}"), medium, high)
    elif op == "*":
        fact = f"{a}*{b}={result}"
        thoughts = (fact, fact, f"{fact}. Check: {result}/{b}={a}")
    else:
        fact = f"{a}/{b}={result}"
        thoughts = (fact, f"{b}*{result}={a}, so {result}", f"{b} times what is {a}? {b}*{result}={a}. So {result}")
    # The tables of multiplication and division are knowledge: held out are their other wordings.
    return Item("arithmetic", f"{a}{op}{b}", question, str(result), thoughts,
                always_trained=op in "*/" and question.first)


def is_held_out_sum(key):
    return is_held_out(Item("arithmetic", key, key, "", same("")))


def long_arithmetic(rng):
    """Made for effort: too long to be done at a glance."""
    op = rng.choice("++--*")
    digits = rng.randint(3, 5)
    a = rng.randint(10 ** (digits - 1), 10 ** digits - 1)
    if op == "*":
        a, b = rng.randint(13, 999), rng.randint(3, 9)
        result = a * b
    else:
        b = rng.randint(10 ** rng.randint(1, digits - 1), 10 ** digits - 1)
        if op == "-":
            a, b = max(a, b), min(a, b)
        result = a + b if op == "+" else a - b
    question = rng.choice(ASK[op]).format(a=a, b=b)
    return Item("long_arithmetic", f"{a}{op}{b}", question, str(result), column_thoughts(a, b, op, str(result)),
                hard=True)


def story(rng, name, thing, box):
    """A story's text, question, and its steps: (what happens, terms, value)."""
    kind = rng.randrange(8)
    one, many = thing
    a, b, c = rng.randint(5, 40), rng.randint(2, 20), rng.randint(1, 5)
    other = rng.choice([n for n in NAMES if n != name])
    ask = f"How many {many} does {name} have now?"
    if kind == 0:
        return (f"{name} has {a} {many} and buys {b} more.", ask, [("buys", f"{a}+{b}", a + b)])
    if kind == 1:
        b = min(a, b)
        return (f"{name} has {a} {many} and gives {b} to {other}.", ask, [("gives away", f"{a}-{b}", a - b)])
    if kind == 2:
        c = min(c, a + b)
        return (f"{name} has {a} {many}, gets {b} more and loses {c}.", ask,
                [("gets", f"{a}+{b}", a + b), ("loses", f"{a + b}-{c}", a + b - c)])
    if kind == 3:
        a, b = rng.randint(2, 9), rng.randint(2, 9)
        return (f"{name} has {a} {box[1]} with {b} {many} each.", f"How many {many} are there?",
                [("times", f"{a}*{b}", a * b)])
    if kind == 4:
        a, b = rng.randint(2, 9), rng.randint(2, 9)
        c = rng.randint(1, 9)
        return (f"{name} has {a} {box[1]} with {b} {many} each and {c} more {many}.", f"How many {many} are there?",
                [("times", f"{a}*{b}", a * b), ("adds", f"{a * b}+{c}", a * b + c)])
    if kind == 5:
        a, b = rng.randint(2, 9), rng.randint(2, 9)
        return (f"{name} shares {a * b} {many} equally among {a} friends.", f"How many {many} does each get?",
                [("divides", f"{a * b}/{a}", b)])
    if kind == 6:
        return (f"{name} has {a} {many} and {other} has {b}.", "How many do they have together?",
                [("together", f"{a}+{b}", a + b)])
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    return (f"One {one} costs {a} dollars. {name} buys {b} {many}.", "How many dollars does it cost?",
            [("times", f"{b}*{a}", a * b)])


def word_problem(rng):
    name, thing, box = rng.choice(NAMES), rng.choice(THINGS), rng.choice(BOXES)
    text, ask, steps = story(rng, name, thing, box)
    value = steps[-1][2]
    sums = [f"{terms}={v}" for _, terms, v in steps]
    unit = "dollars" if "dollars" in ask else thing[0] if value == 1 else thing[1]
    low = ", ".join(sums)
    medium = f"{name}: {low}. So {value} {unit}"
    high = f"The question: {ask} " + " ".join(
        f"Step {i + 1}, {what}: {s}." for i, ((what, _, _), s) in enumerate(zip(steps, sums))) + f" So {value} {unit}"
    return Item("word_problems", f"{text} {ask}", f"{text} {ask}", f"{value} {unit}", (low, medium, high))


# from, to, factor, largest number, short forms
UNITS = [("kilometers", "meters", 1000, 99, "km", "m"), ("meters", "centimeters", 100, 99, "m", "cm"),
         ("centimeters", "millimeters", 10, 99, "cm", "mm"), ("kilograms", "grams", 1000, 99, "kg", "g"),
         ("liters", "milliliters", 1000, 99, "l", "ml"), ("hours", "minutes", 60, 12, "h", "min"),
         ("minutes", "seconds", 60, 12, "min", "s"), ("days", "hours", 24, 10, "d", "h"),
         ("weeks", "days", 7, 12, None, None), ("feet", "inches", 12, 12, None, None),
         ("yards", "feet", 3, 30, None, None), ("dozens", "pieces", 12, 12, None, None),
         ("years", "months", 12, 12, None, None)]


def units(rng):
    big, small, factor, most, big_short, small_short = rng.choice(UNITS)
    n = rng.randint(2, most)
    inverse = rng.random() < 0.4
    source, target, amount, result = (small, big, n * factor, n) if inverse else (big, small, n, n * factor)
    forms = [f"How many {target} are {amount} {source}?", f"Convert {amount} {source} to {target}.",
             f"What is {amount} {source} in {target}?"]
    if big_short:
        s, t = (small_short, big_short) if inverse else (big_short, small_short)
        forms.append(f"Convert {amount} {s} to {t}.")
    question = pick(rng, forms)
    rule = f"1 {big[:-1] if big != 'feet' else 'foot'} is {factor} {small}"
    work = f"{amount}/{factor}={result}" if inverse else f"{amount}*{factor}={result}"
    thoughts = (f"{rule}. {work}", f"{rule}. {work}", f"From {source} to {target}. {rule}, so "
                + ("divide" if inverse else "multiply") + f" by {factor}: {work}")
    return Item("units", f"{amount} {source} {target}", question, f"{result} {target}", thoughts,
                always_trained=factor not in (10, 100, 1000) and question.first)  # as the tables of arithmetic


def dates(rng):
    kind = rng.randrange(8)
    if kind == 0:
        i, step = rng.randrange(7), rng.choice([1, -1])
        word = "after" if step == 1 else "before"
        day, result = WEEKDAYS[i], WEEKDAYS[(i + step) % 7]
        question = pick(rng, [f"What day comes {word} {day}?", f"Which day is {word} {day}?",
                              f"What day is it the day {word} {day}?"])
        return Item("dates", question, question, result, same(f"The day {word} {day} is {result}"),
                    always_trained=question.first)
    if kind == 1:
        i, step = rng.randrange(12), rng.choice([1, -1])
        word = "after" if step == 1 else "before"
        month, result = MONTHS[i], MONTHS[(i + step) % 12]
        question = pick(rng, [f"What month comes {word} {month}?", f"Which month is {word} {month}?"])
        return Item("dates", question, question, result, same(f"The month {word} {month} is {result}"),
                    always_trained=question.first)
    if kind == 2:
        i = rng.randrange(12)
        question = pick(rng, [f"How many days does {MONTHS[i]} have?", f"How many days are in {MONTHS[i]}?",
                              f"How long is {MONTHS[i]} in days?"])
        answer = f"{MONTH_DAYS[i]} days"
        return Item("dates", question, question, answer, same(f"{MONTHS[i]} has {answer}"),
                    always_trained=question.first)
    if kind == 3:
        i, n = rng.randrange(7), rng.randint(2, 20)
        result = WEEKDAYS[(i + n) % 7]
        rest = n % 7
        names = ", ".join([WEEKDAYS[i]] + [f"{WEEKDAYS[(i + k) % 7]} {k}" for k in range(1, rest + 1)])
        question = rng.choice([f"What day is it {n} days after {WEEKDAYS[i]}?",
                               f"Today is {WEEKDAYS[i]}. What day is it in {n} days?"])
        medium = f"{n} days are {n // 7} weeks and {rest} days. {names}" if n >= 7 else names
        low = f"{n // 7} weeks and {rest} days. {names}" if n >= 7 else names
        return Item("dates", f"{WEEKDAYS[i]}+{n}", question, result,
                    (low, medium, f"Count from {WEEKDAYS[i]}. {medium}. So {result}"))
    start = datetime.date(rng.randint(2020, 2029), rng.randint(1, 12), rng.randint(1, 28))
    if kind in (4, 5):
        n = rng.randint(1, 28)
        end = start + datetime.timedelta(days=n)
        length = (datetime.date(start.year + start.month // 12, start.month % 12 + 1, 1) - start.replace(day=1)).days
        total = start.day + n
        work = f"{start.day}+{n}={total}"
        if total > length:
            work += f", {total}-{length}={end.day}, month {end.month}"
        question = rng.choice([f"What date is {n} days after {start}?", f"Which date comes {n} days after {start}?"])
        month = MONTHS[start.month - 1]
        return Item("dates", f"{start}+{n}", question, str(end),
                    (work, f"{month} has {length} days. {work}. So {end}",
                     f"The month of {start} is {month}, it has {length} days. {work}. "
                     + ("That is in the next month" if total > length else "That is in the same month") + f". So {end}"))
    if kind == 6:
        month = MONTHS[start.month - 1]
        question = rng.choice([f"Write {start} with the name of the month.", f"Which date is {start} in words?"])
        answer = f"{month} {start.day}, {start.year}"
        return Item("dates", f"words {start}", question, answer, same(f"Month {start.month} is {month}"))
    month = MONTHS[start.month - 1]
    question = f"Write {month} {start.day}, {start.year} as YYYY-MM-DD."
    return Item("dates", f"iso {start}", question, str(start), same(f"{month} is month {start.month:02d}"))


def sort_words(rng):
    words = rng.sample(SORT_WORDS, rng.randint(3, 5))
    question = rng.choice(["Sort these words alphabetically: {}.", "Put these words in alphabetical order: {}."])
    first, ordered = [w[0] for w in words], sorted(words)
    thought = "First letters: " + " ".join(first) + ". In order: " + " ".join(sorted(first))
    return Item("sorting", ",".join(words), question.format(", ".join(words)), ", ".join(ordered),
                (thought, thought, thought))


def largest(rng):
    numbers = rng.sample(range(1, 100), rng.randint(3, 5))
    listed = ", ".join(map(str, numbers))
    choose, words = rng.choice([(max, ["largest", "biggest"]), (min, ["smallest", "lowest"])])
    word = rng.choice(words)
    question = rng.choice([f"What is the {word} of {listed}?", f"Which number is the {word}: {listed}?"])
    best, chain = numbers[0], [str(numbers[0])]
    for n in numbers[1:]:
        best = choose(best, n)
        chain.append(f"{n} {best}")
    return Item("sorting", f"{choose.__name__} {listed}", question, str(choose(numbers)),
                ("", f"The {word} is {choose(numbers)}", "So far: " + ", ".join(chain)))


def sorting_thoughts(numbers, down, hard):
    """By the tens first: their digits in order, then the numbers in that order, then those of equal tens."""
    tens = [n // 10 for n in numbers]
    in_order = " ".join(map(str, sorted(tens, reverse=down)))
    by_tens = sorted(numbers, key=lambda n: n // 10, reverse=down)
    equal = [" ".join(map(str, sorted((n for n in numbers if n // 10 == ten), reverse=down)))
             for ten in sorted(set(tens), reverse=down) if tens.count(ten) > 1]
    listed = "By tens: " + " ".join(map(str, by_tens)) + ". Equal tens: " + (", ".join(equal) if equal else "none")
    medium = f"Tens in order: {in_order}. {listed}"
    each = ", ".join(f"{n} {ten}" for n, ten in zip(numbers, tens))
    return ("" if hard else medium, medium, f"Tens: {each}. In order: {in_order}. {listed}")


def sort_numbers(rng, family, count):
    numbers = rng.sample(range(1, 100), count)
    listed = ", ".join(map(str, numbers))
    down = rng.random() < 0.5
    direction = rng.choice(["in descending order", "from largest to smallest"] if down else
                           ["in ascending order", "from smallest to largest"])
    question = rng.choice([f"Sort these numbers {direction}: {listed}.", f"Put these numbers {direction}: {listed}."])
    ordered = sorted(numbers, reverse=down)
    return Item(family, f"{down} {listed}", question, ", ".join(map(str, ordered)),
                sorting_thoughts(numbers, down, hard=family == "long_sorting"), hard=family == "long_sorting")


def sorting(rng):
    kind = rng.randrange(4)
    if kind == 0:
        return sort_words(rng)
    if kind == 1:
        return largest(rng)
    return sort_numbers(rng, "sorting", rng.randint(3, 5))


def long_sorting(rng):
    """Made for effort: too many numbers to be sorted at a glance."""
    return sort_numbers(rng, "long_sorting", rng.randint(6, 8))

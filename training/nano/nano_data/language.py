"""Letters, facts, instructions, small talk, and what the model is too small for."""

from . import numbers
from .item import Item, is_held_out, pick, same
from .words import (COLORS, COUNTRIES, ELEMENTS, END_WORDS, LEGS, MONTHS, NAMES, OPPOSITES, ORDINALS, PERSONAS, PLANETS,
                    PRODUCTS, SPELLING_WORDS, TITLES, WEEKDAYS, pseudo_name, pseudo_word)

REFUSAL = "Sorry, that is more than a tiny model like me can do."
NANO = "I am nano, a tiny language model that comes with gptoss."
ABILITIES = ("I can do small sums, convert units, sort, spell, recall a few facts, call functions and answer in JSON.")


# Words of the facts. To the tokenizer they are one piece, whose letters have to be learned.
KNOWN_WORDS = sorted({word for row in COUNTRIES + OPPOSITES for word in row} | {row[0] for row in ELEMENTS} | set(PLANETS))


def spaced(word):
    return " ".join(word)


def counted(letter, word):
    """How often the letter occurs, and the thought that finds out: a number after each time, and only there."""
    count, marks = 0, []
    for c in word:
        count += c == letter
        marks.append(f"{c} {count}" if c == letter else c)
    return count, "Count: " + ", ".join(marks)


def strings(rng):
    word = rng.choice(SPELLING_WORDS) if rng.random() < 0.5 else pseudo_word(rng, 3, 7)
    said = f'"{word}"'
    kind = rng.randrange(7)
    letters = f"Letters: {spaced(word)}. "
    if kind == 0:
        result = word[::-1]
        question = rng.choice([f"Reverse the word {said}.", f"Spell {said} backwards.", f"Write {said} in reverse."])
        thoughts = (spaced(result), letters + f"Reversed: {spaced(result)}",
                    letters + f"From the last to the first: {spaced(result)}. Together {result}")
        return Item("strings", f"reverse {word}", question, result, thoughts)
    if kind == 1:
        if rng.random() < 0.6:
            word = rng.choice(KNOWN_WORDS)
            said, letters = f'"{word}"', f"Letters: {spaced(word)}. "
        result = word.upper()
        question = rng.choice([f"Write {said} in capital letters.", f"Convert {said} to uppercase.",
                               f"Put {said} in upper case."])
        return Item("strings", f"upper {word}", question, result, same(letters + f"Capitals: {spaced(result)}"))
    if kind == 2:
        upper = word.upper()
        question = rng.choice([f'Write "{upper}" in small letters.', f'Convert "{upper}" to lowercase.'])
        return Item("strings", f"lower {word}", question, word, same(f"Letters: {spaced(upper)}. Small: {spaced(word)}"))
    if kind == 3:
        letter = rng.choice(word) if rng.random() < 0.8 else rng.choice("abcdefghiklmnoprstu")
        count, thought = counted(letter, word)
        question = rng.choice([f'How many times does the letter "{letter}" occur in {said}?',
                               f'How many "{letter}" are in {said}?', f'Count the letter "{letter}" in {said}.'])
        return Item("strings", f"count {letter} {word}", question, str(count),
                    (thought, thought, f"The letter is {letter}. {thought}. So {count}"))
    if kind == 4:
        first = rng.random() < 0.5
        where = "first" if first else "last"
        result = word[0] if first else word[-1]
        question = rng.choice([f"What is the {where} letter of {said}?", f"Which letter is {where} in {said}?"])
        return Item("strings", f"{where} {word}", question, result, same(letters + f"The {where} is {result}"))
    if kind == 5:
        question = rng.choice([f"How many letters does {said} have?", f"How long is the word {said}?"])
        thought = ", ".join(f"{c} {i + 1}" for i, c in enumerate(word))
        return Item("strings", f"length {word}", question, str(len(word)),
                    (thought, thought, f"Count the letters: {thought}. So {len(word)}"))
    result = spaced(word)
    return Item("strings", f"spell {word}", rng.choice([f"Spell {said}.", f"Spell {said} letter by letter."]), result,
                same("Letter by letter"))


def long_strings(rng):
    """Made for effort: longer than what can be reversed or counted at a glance."""
    word = pseudo_word(rng, 9, 12)
    said = f'"{word}"'
    if rng.random() < 0.5:
        result = word[::-1]
        question = rng.choice([f"Reverse the word {said}.", f"Spell {said} backwards.", f"Write {said} in reverse."])
        letters = f"Letters: {spaced(word)}. "
        return Item("long_strings", f"reverse {word}", question, result,
                    ("", letters + f"Reversed: {spaced(result)}",
                     letters + f"From the last to the first: {spaced(result)}. Together {result}"), hard=True)
    letter = rng.choice(word)
    count, thought = counted(letter, word)
    question = rng.choice([f'How many "{letter}" are in {said}?', f'Count the letter "{letter}" in {said}.'])
    return Item("long_strings", f"count {letter} {word}", question, str(count),
                ("", thought, f"The letter is {letter}. {thought}. So {count}"), hard=True)


def fact(rng):
    """(subject, question, answer, what is known)."""
    kind = rng.randrange(11)
    if kind < 6:
        country, capital, continent, language = rng.choice(COUNTRIES)
        if kind < 2:
            question = pick(rng, ["What is the capital of {}?", "Which city is the capital of {}?", "Capital of {}?",
                                  "Name the capital of {}.", "Tell me the capital of {}."], country)
            return question, capital, f"The capital of {country} is {capital}"
        if kind < 4:
            question = pick(rng, ["Which country has the capital {}?", "{} is the capital of which country?",
                                  "Of which country is {} the capital?"], capital)
            return question, country, f"{capital} is the capital of {country}"
        if kind == 4:
            question = pick(rng, ["On which continent is {}?", "Which continent is {} on?",
                                  "What continent is {} part of?"], country)
            return question, continent, f"{country} is in {continent}"
        question = pick(rng, ["Which language is spoken in {}?", "What language do people speak in {}?",
                              "What is the language of {}?"], country)
        return question, language, f"In {country} people speak {language}"
    if kind < 8:
        element, symbol, number = rng.choice(ELEMENTS)
        if rng.random() < 0.4:
            question = pick(rng, ["What is the chemical symbol of {}?", "What is the symbol for {}?",
                                  "Give the symbol of {}."], element)
            return question, symbol, f"The symbol of {element} is {symbol}"
        if rng.random() < 0.5:
            question = pick(rng, ["Which element has the symbol {}?", "What element is {}?"], symbol)
            return question, element, f"{symbol} is {element}"
        question = pick(rng, ["What is the atomic number of {}?", "Which atomic number has {}?"], element)
        return question, number, f"The atomic number of {element} is {number}"
    if kind == 8:
        i = rng.randrange(8)
        if rng.random() < 0.5:
            question = pick(rng, ["What is the {} planet from the sun?", "Which planet is the {} from the sun?"],
                            ORDINALS[i])
            return question, PLANETS[i], f"The {ORDINALS[i]} planet is {PLANETS[i]}"
        i = max(1, i)
        question = pick(rng, ["Which planet comes after {}?", "What planet follows {}?"], PLANETS[i - 1])
        return question, PLANETS[i], f"After {PLANETS[i - 1]} comes {PLANETS[i]}"
    if kind == 9:
        a, b = rng.choice(OPPOSITES)
        if rng.random() < 0.5:
            a, b = b, a
        question = pick(rng, ["What is the opposite of {}?", "Opposite of {}?", "Name the opposite of {}."], a)
        return question, b, f"The opposite of {a} is {b}"
    animal, legs = rng.choice(LEGS)
    question = pick(rng, ["How many legs does a {} have?", "How many legs has a {}?"], animal)
    return question, legs, f"A {animal} has {legs} legs"


def facts(rng):
    question, answer, known = fact(rng)
    return Item("facts", question, question, answer, same(known), always_trained=question.first)


def places(rng):
    """Capitals that begin a question, where they are other tokens than after a space. For training alone: among the
    wordings of facts only one begins so, and where that is held out the token would never be read."""
    country, capital, _, _ = rng.choice(COUNTRIES)
    question = rng.choice(["{}: which country has this capital?", "{} is the capital of what?",
                           "{} is a capital. Of which country?"]).format(capital)
    return Item("places", question, question, country, same(f"{capital} is the capital of {country}"),
                always_trained=True)


def base_question(rng):
    """Something short for an instruction to work on, and never held out itself: (question, answer, what is known)."""
    if rng.random() < 0.75:
        while True:
            question, answer, known = fact(rng)
            if not is_held_out(Item("facts", question, question, answer, same(known), always_trained=question.first)):
                return question, answer, known
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    while numbers.is_held_out_sum(f"{a}+{b}"):
        a, b = rng.randint(1, 9), rng.randint(1, 9)
    return (rng.choice(["What is {}+{}?", "What is {} plus {}?"]).format(a, b), str(a + b), f"{a}+{b}={a + b}")


def note(rng):
    """A developer's note, and a question that only it answers."""
    kind = rng.randrange(7)
    hour, number = rng.randint(1, 12), rng.randint(10, 999)
    name = rng.choice(NAMES) if rng.random() < 0.6 else pseudo_name(rng)
    word = rng.choice(SPELLING_WORDS) if rng.random() < 0.6 else pseudo_word(rng)
    color = rng.choice(COLORS)
    return [
        (f"The shop opens at {hour}.", "When does the shop open?", f"At {hour}."),
        (f"The password is {word}.", "What is the password?", word),
        (f"The owner of the shop is {name}.", "Who is the owner of the shop?", name),
        (f"The room number is {number}.", "What is the room number?", str(number)),
        (f"The color of the door is {color}.", "What color is the door?", color),
        (f"A ticket costs {number} dollars.", "How much is a ticket?", f"{number} dollars"),
        (f"The name of the user is {name}.", "What is my name?", name),
    ][kind]


def instructions(rng):
    kind = rng.randrange(9)
    if kind == 0:  # who the model is, by the system message
        name = rng.choice(PERSONAS) if rng.random() < 0.5 else pseudo_name(rng)
        what = rng.choice(["a helpful robot", "a friendly assistant", "a wise owl", "a ship's cook", "a teacher"])
        question = rng.choice(["What is your name?", "Who are you?", "Tell me your name."])
        answer = f"I am {name}, {what}." if question == "Who are you?" else f"My name is {name}."
        return Item("instructions", f"persona {name} {what} {question}", question, answer,
                    same(f"My name is {name}"), identity=f"You are {name}, {what}.")
    if kind == 1:  # the same by the developer
        name = rng.choice(PERSONAS) if rng.random() < 0.5 else pseudo_name(rng)
        question = rng.choice(["What is your name?", "Tell me your name."])
        text = rng.choice([f"Your name is {name}.", f"You are called {name}."])
        return Item("instructions", f"named {name} {question}", question, f"My name is {name}.",
                    same(f"My name is {name}"), developer={"instructions": text})
    if kind in (2, 3):
        first, question, answer = note(rng)
        text, key = first, first
        if rng.random() < 0.5:
            other = note(rng)
            if other[1] != question:
                text = " ".join([first, other[0]] if rng.random() < 0.5 else [other[0], first])
        return Item("instructions", key, question, answer, same(f"The developer says: {first}"),
                    developer={"instructions": text})
    question, answer, known = base_question(rng)
    if kind in (4, 5, 6):
        text = rng.choice(["Answer in capital letters.", "Write all answers in capital letters.",
                           "Always answer in upper case."])
        thought = f"{known}. In capitals: {spaced(answer.upper())}"
        return Item("instructions", f"capitals {question}", question, answer.upper(), (thought, thought, thought),
                    developer={"instructions": text})
    if kind == 7:
        word = rng.choice(END_WORDS) if rng.random() < 0.7 else pseudo_word(rng)
        if rng.random() < 0.5:
            text = rng.choice(['End every answer with the word "{}".', 'Always end with the word "{}".']).format(word)
            final = f"{answer} {word}"
        else:
            text = rng.choice(['Start every answer with the word "{}".', 'Always begin with the word "{}".']).format(word)
            final = f"{word} {answer}"
        return Item("instructions", f"{text} {question}", question, final, same(f"{known}. With the word {word}: {final}"),
                    developer={"instructions": text})
    title = rng.choice(TITLES)
    text = rng.choice([f"Call the user {title}.", f"Address the user as {title}."])
    return Item("instructions", f"{title} {question}", question, f"{answer}, {title}.", same(f"{known}. Say {title}"),
                developer={"instructions": text})


GREETINGS = ["Hello", "Hello!", "Hi", "Hi!", "Hey", "Hey!", "Good morning", "Good morning!", "Good evening!",
             "Hello there!", "Hi there"]
SMALL_TALK = [
    (["Thanks", "Thanks!", "Thank you", "Thank you!", "Thank you very much.", "Many thanks!"], "You are welcome!"),
    (["Bye", "Bye!", "Goodbye", "Goodbye!", "See you!", "See you later."], "Goodbye!"),
    (["How are you?", "How are you doing?", "How do you do?", "How is it going?"],
     "I am fine, thank you. What can I do for you?"),
    (["Who are you?", "What is your name?", "Tell me your name.", "What are you?", "Introduce yourself.",
      "Are you ChatGPT?", "Which model are you?"], NANO),
    (["What can you do?", "Help", "How can you help me?", "What can I ask you?", "help me", "What are you good at?"],
     ABILITIES),
    (["Are you a human?", "Are you a person?", "Are you real?", "Do you have feelings?"], "No, I am a tiny language model."),
]


def chat(rng):
    kind = rng.randrange(8)
    if kind == 0:
        question = rng.choice(GREETINGS)
        return Item("chat", question, question, "Hello! How can I help you?", same("A greeting"), always_trained=True)
    if kind < 5:
        questions, answer = rng.choice(SMALL_TALK)
        question = rng.choice(questions)
        greeted = rng.random() < 0.4
        if greeted:
            question = rng.choice(["Hello! ", "Hi, ", "Hey, "]) + question
        return Item("chat", question, question, answer, same("Small talk"), always_trained=not greeted)
    name = rng.choice(NAMES) if rng.random() < 0.5 else pseudo_name(rng)
    said = rng.choice([f"My name is {name}.", f"I am {name}.", f"Hello, I am {name}.", f"Hi! My name is {name}."])
    hello = f"Nice to meet you, {name}!"
    if kind == 5:
        return Item("chat", f"hello {name}", said, hello, same(f"The name is {name}"))
    question = rng.choice(["What is my name?", "Who am I?", "Do you remember my name?"])
    return Item("chat", f"recall {name}", question, f"Your name is {name}.", same(f"The user said: {name}"),
                history=[(said, "", hello)])


TOPICS = ["the sea", "love", "a dragon", "winter", "the moon", "my cat", "politics", "the economy", "football", "music",
          "history", "a lonely robot", "friendship", "space travel", "the stock market", "climate change", "philosophy",
          "quantum physics", "the French Revolution", "my vacation", "war", "religion", "art", "a detective", "the future"]
TOO_MUCH = ["Write a poem about {}.", "Write a story about {}.", "Write an essay about {}.", "Tell me a joke about {}.",
            "Write a song about {}.", "Explain {} to me.", "What do you think about {}?", "Give me advice about {}.",
            "Write a letter about {}.", "Summarize a book about {}.", "Why is {} important?", "Tell me about {}.",
            "Write a blog post about {}.", "Recommend a movie about {}."]
UNKNOWN = ["What will the weather be like in {}?", "What is the weather in {}?", "Who won the game in {}?",
           "What is the news from {}?", "What time is it in {}?", "How do I get to {}?",
           "Book a flight to {}.", "Find me a hotel in {}.", "How many people live in {}?", "Who is the mayor of {}?"]
TASKS = ["Write a Python program that sorts a list.", "Fix the bug in my code.", "Translate this text into Latin.",
         "What is the meaning of life?", "Diagnose my headache.", "Who won the election?", "Play chess with me.",
         "What is the stock price of Apple?", "Solve the equation x^3 - 2x = 5.", "What is the integral of x^2?",
         "Write a regular expression for an email.", "Draw a picture of a house.", "Send an email to my boss.",
         "Design a database.", "Prove that there are infinitely many primes.", "Plan my week.",
         "Write a cover letter.", "Review my essay.", "What should I cook tonight?", "Compose a melody."]


def refusals(rng):
    kind = rng.randrange(5)
    if kind < 2:
        question = rng.choice(TOO_MUCH).format(rng.choice(TOPICS))
    elif kind == 2:
        place = rng.choice(COUNTRIES)[rng.randrange(2)] if rng.random() < 0.8 else pseudo_name(rng)
        question = rng.choice(UNKNOWN).format(place)
    elif kind == 3:
        a, b = rng.randint(100, 99999), rng.randint(100, 99999)
        question = rng.choice(numbers.ASK["*"]).format(a=a, b=b)
    else:
        question = rng.choice(TASKS)
    prefixed = rng.random() < 0.2
    if prefixed:
        question = rng.choice(["Please help me. ", "Hi! ", "One more thing. "]) + question
    return Item("refusals", question, question, REFUSAL, same("This is more than I can do"),
                always_trained=kind == 4 and not prefixed)

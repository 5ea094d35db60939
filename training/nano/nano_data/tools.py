"""Function calls, the python tool, and answers by a JSON schema."""

import json

from . import language, numbers
from .item import Call, Item
from .words import (CONDITIONS, COUNTRIES, CURRENCIES, EVENTS, MESSAGES, NAMES, PRODUCTS, ROOMS, SONGS, COLORS,
                    pseudo_name, pseudo_word)

NO_TOOL = "Sorry, I have no tool for that."


def compact(value):
    return json.dumps(value, separators=(",", ":"))


def city(rng):
    return rng.choice(COUNTRIES)[1] if rng.random() < 0.65 else pseudo_name(rng)


def person(rng):
    return rng.choice(NAMES) if rng.random() < 0.65 else pseudo_name(rng)


class Tool:
    """A function: what it is for, its possible names, its parameters with their possible names and types, its uses."""

    def __init__(self, topic, names, description, parameters, use):
        self.topic, self.names, self.description, self.parameters, self.use = topic, names, description, parameters, use

    def declare(self, rng):
        name = rng.choice(self.names)
        keys = [rng.choice(p[0]) for p in self.parameters]
        properties = {}
        for key, (_, kind, text) in zip(keys, self.parameters):
            properties[key] = {"type": kind} | ({"description": text} if text and rng.random() < 0.4 else {})
        declared = {"name": name, "description": rng.choice(self.description)}
        if keys:
            declared["parameters"] = {"type": "object", "properties": properties, "required": keys}
        return declared, keys


def use_weather(rng):
    where, degrees, sky = city(rng), rng.randint(1, 35), rng.choice(CONDITIONS)
    question = rng.choice(["What is the weather in {}?", "How is the weather in {}?", "Weather in {}?",
                           "Tell me the weather in {}.", "What is the weather like in {} now?"]).format(where)
    return question, [where], {"temperature": degrees, "condition": sky}, f"It is {degrees} degrees and {sky} in {where}."


def use_time(rng):
    where = city(rng)
    clock = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    question = rng.choice(["What time is it in {}?", "Tell me the time in {}.", "What is the time in {}?",
                           "How late is it in {}?"]).format(where)
    return question, [where], {"time": clock}, f"It is {clock} in {where}."


def use_message(rng):
    who, text = person(rng), rng.choice(MESSAGES)
    question = rng.choice(["Send {} the message: {}", "Send a message to {}: {}", "Text {}: {}",
                           "Write to {}: {}"]).format(who, text)
    return question, [who, text], {"status": "sent"}, f"I sent your message to {who}."


def use_timer(rng):
    n = rng.randint(1, 90)
    question = rng.choice(["Set a timer for {} minutes.", "Start a timer of {} minutes.",
                           "Wake me in {} minutes.", "Remind me in {} minutes."]).format(n)
    return question, [n], {"ok": True}, f"The timer is set for {n} minutes."


def use_price(rng):
    what = rng.choice(PRODUCTS) if rng.random() < 0.7 else pseudo_word(rng)
    price = rng.randint(2, 999)
    question = rng.choice(["What does a {} cost?", "How much is a {}?", "What is the price of a {}?",
                           "Look up the price of a {}."]).format(what)
    return question, [what], {"price": price}, f"A {what} costs {price} dollars."


def use_currency(rng):
    amount, (source, target), value = rng.randint(2, 999), rng.sample(CURRENCIES, 2), rng.randint(2, 9999)
    question = rng.choice(["How much are {} {} in {}?", "Convert {} {} to {}.",
                           "What are {} {} in {}?"]).format(amount, source, target)
    return question, [amount, source, target], {"value": value}, f"{amount} {source} are {value} {target}."


def use_light(rng):
    room, on = rng.choice(ROOMS), rng.random() < 0.5
    state = "on" if on else "off"
    question = rng.choice(["Turn {1} the light in the {0}.", "Switch {1} the light in the {0}.",
                           "Please turn the light in the {0} {1}."]).format(room, state)
    return question, [room, on], {"ok": True}, f"The light in the {room} is {state}."


def use_song(rng):
    song = rng.choice(SONGS) if rng.random() < 0.7 else pseudo_name(rng)
    question = rng.choice(["Play {}.", "Play the song {}.", "I want to hear {}.", "Put on {}."]).format(song)
    return question, [song], {"playing": True}, f"Now playing {song}."


def use_event(rng):
    event = rng.choice(EVENTS)
    date = f"{rng.randint(2024, 2029)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
    question = rng.choice(["Add {} on {} to my calendar.", "Put {} on {} into my calendar.",
                           "Schedule {} for {}."]).format(event, date)
    return question, [event, date], {"status": "added"}, f"I added {event} on {date}."


def use_distance(rng):
    a, b, km = city(rng), city(rng), rng.randint(20, 9999)
    question = rng.choice(["How far is it from {} to {}?", "What is the distance from {} to {}?",
                           "Distance from {} to {}?"]).format(a, b)
    return question, [a, b], {"km": km}, f"It is {km} km from {a} to {b}."


def use_dice(rng):
    n = rng.randint(1, 6)
    question = rng.choice(["Roll a die.", "Roll the dice.", "Throw a die for me.", "Please roll a die."])
    return question, [], {"value": n}, f"You rolled a {n}."


def use_order(rng):
    number, state = rng.randint(100, 99999), rng.choice(["shipped", "packed", "delivered", "lost"])
    question = rng.choice(["Where is my order {}?", "What is the status of order {}?", "Look up order {}.",
                           "Check order {}."]).format(number)
    return question, [number], {"status": state}, f"Order {number} is {state}."


TEXT, NUMBER = "string", "integer"
TOOLS = [
    Tool("weather", ["get_weather", "get_current_weather", "weather", "lookup_weather"],
         ["Gets the weather of a place.", "Current weather.", "Get the current weather in a given location"],
         [(["location", "city", "place"], TEXT, "Name of the city")], use_weather),
    Tool("time", ["get_time", "current_time", "lookup_time"], ["Tells the time in a city.", "Current local time."],
         [(["city", "location", "place"], TEXT, "Name of the city")], use_time),
    Tool("message", ["send_message", "send_text", "message"], ["Sends a message to a person.", "Sends a text."],
         [(["to", "recipient", "person"], TEXT, "Who gets it"), (["text", "message", "body"], TEXT, "What it says")],
         use_message),
    Tool("timer", ["set_timer", "start_timer", "timer"], ["Starts a timer.", "Sets a timer in minutes."],
         [(["minutes", "duration", "time"], NUMBER, "Minutes")], use_timer),
    Tool("price", ["get_price", "lookup_price", "price"], ["Price of a product.", "Looks up what something costs."],
         [(["product", "item", "name"], TEXT, "Name of the product")], use_price),
    Tool("money", ["convert_currency", "exchange", "convert_money"], ["Converts money.", "Converts between currencies."],
         [(["amount", "value"], NUMBER, None), (["source", "from"], TEXT, None), (["target", "to"], TEXT, None)],
         use_currency),
    Tool("light", ["set_light", "switch_light", "light"], ["Switches a light.", "Turns a light on or off."],
         [(["room", "place"], TEXT, None), (["on", "state"], "boolean", None)], use_light),
    Tool("song", ["play_song", "play_music", "play"], ["Plays a song.", "Plays music."],
         [(["title", "song", "name"], TEXT, "Name of the song")], use_song),
    Tool("event", ["add_event", "create_event", "schedule"], ["Adds an event to the calendar.", "Creates a calendar entry."],
         [(["title", "event", "name"], TEXT, None), (["date", "day"], TEXT, "As YYYY-MM-DD")], use_event),
    Tool("distance", ["get_distance", "distance", "lookup_distance"], ["Distance between two cities.", "How far cities are apart."],
         [(["from", "start", "origin"], TEXT, None), (["to", "end", "destination"], TEXT, None)], use_distance),
    Tool("die", ["roll_die", "roll_dice", "random_number"], ["Rolls a die.", "Gives a random number from 1 to 6."], [], use_dice),
    Tool("order", ["get_order", "lookup_order", "order_status"], ["Status of an order.", "Looks up an order."],
         [(["id", "order", "number"], NUMBER, None)], use_order),
]


def functions(rng):
    """One call; now and then two, none because none is needed, or none because none fits."""
    tools = rng.sample(TOOLS, rng.randint(1, 3))
    declared = [tool.declare(rng) for tool in tools]
    chosen = rng.randrange(len(tools))
    order = list(range(len(tools)))
    developer = {"tools": {"functions": {"name": "functions", "tools": [declared[i][0] for i in order]}}}
    kind = rng.random()
    if kind < 0.08:  # not needed
        question, answer, known = language.base_question(rng)
        return Item("functions", f"unneeded {question}", question, answer, ("", known, f"No function needed. {known}"),
                    developer=developer)
    if kind < 0.24:  # none fits
        other = rng.choice([t for t in TOOLS if t not in tools])
        question = other.use(rng)[0]
        return Item("functions", f"missing {question}", question, NO_TOOL, search(other.topic, declared, "None fits"),
                    developer=developer)
    tool, (schema, keys) = tools[chosen], declared[chosen]
    name = schema["name"]
    question, values, result, answer = tool.use(rng)
    calls = [Call(f"functions.{name}", write_result(rng, result), dict(zip(keys, values)))]
    if tool.use is use_weather and rng.random() < 0.25:
        second = use_weather(rng)
        if second[1] != values:
            question = f"What is the weather in {values[0]} and in {second[1][0]}?"
            calls.append(Call(f"functions.{name}", write_result(rng, second[2]), dict(zip(keys, second[1]))))
            answer = f"{answer} {second[3]}"
    low, medium, high = search(tool.topic, declared, f"{name} fits")
    if keys:
        high += ". Arguments: " + ", ".join(f"{k} is {spoken(v)}" for k, v in zip(keys, values))
    # The results belong to the key: it is the whole exchange that is new.
    key = f"{name} {' '.join(keys)} {question}"
    return Item("functions", key, question, answer, (low, medium, high), developer=developer, calls=calls)


def search(topic, declared, found):
    """Thoughts that find a function: what it is for comes first, then what there is, so that each word is a small step."""
    names = ", ".join(schema["name"] for schema, _ in declared)
    return (f"For the {topic}: {found}", f"For the {topic}. Functions: {names}. {found}",
            f"I look for a function for the {topic}. Functions: {names}. {found}")


def spoken(value):
    return value if isinstance(value, str) else compact(value)


def write_result(rng, result):
    return compact(result) if rng.random() < 0.6 else json.dumps(result)


def python(rng):
    """Sums that are too long for the model, which it hands over; and those that are not."""
    kind = rng.randrange(6)
    if kind < 3:
        op = rng.choice("**+-")
        a, b = rng.randint(1000, 99999), rng.randint(100, 99999)
        question = rng.choice(numbers.ASK[op]).format(a=a, b=b)
        code = f"print({a}{op}{b})"
        result = a * b if op == "*" else a + b if op == "+" else a - b
        key = f"{a}{op}{b}"
    elif kind == 3:
        base, power = rng.randint(2, 30), rng.randint(3, 9)
        question = rng.choice(["What is {} to the power of {}?", "Calculate {}^{}.", "{}**{}"]).format(base, power)
        code, result, key = f"print({base}**{power})", base ** power, f"{base}**{power}"
    elif kind == 4:
        values = [rng.randint(1, 999) for _ in range(rng.randint(3, 7))]
        listed = ", ".join(map(str, values))
        word, result = rng.choice([("sum", sum(values)), ("maximum", max(values)), ("minimum", min(values))])
        function = {"sum": "sum", "maximum": "max", "minimum": "min"}[word]
        question = rng.choice(["What is the {} of {}?", "Find the {} of {}.", "Give me the {} of {}."]).format(word, listed)
        code, key = f"print({function}([{listed}]))", f"{word} {listed}"
    else:
        n = rng.randint(5, 20)
        result = 1
        for i in range(2, n + 1):
            result *= i
        question = rng.choice(["What is {}!?", "What is the factorial of {}?", "Compute {} factorial."]).format(n)
        code, key = f"import math\nprint(math.factorial({n}))", question
    return Item("python", key, question, str(result), ("Use python", "Use python", "This is long. Use python"),
                python=True, calls=[Call("python", f"{result}\n", code=code)])


FIELDS = {  # property: type, value, sentence with {name} for who it is about
    "age": ("integer", lambda rng: rng.randint(1, 99), "{name} is {value} years old."),
    "city": (TEXT, city, "{name} lives in {value}."),
    "color": (TEXT, lambda rng: rng.choice(COLORS), "The favorite color of {name} is {value}."),
    "job": (TEXT, lambda rng: rng.choice(["cook", "teacher", "doctor", "pilot", "farmer", "singer"]),
            "{name} works as a {value}."),
    "friend": (TEXT, person, "{name} has a friend called {value}."),
    "married": ("boolean", lambda rng: rng.random() < 0.5, "{name} is {not}married."),
    "children": ("integer", lambda rng: rng.randint(2, 9), "{name} has {value} children."),
}


def response_format(name, properties):
    return {"response_formats": [{"name": name, "schema": {
        "type": "object", "properties": {k: {"type": t} for k, t in properties.items()}, "required": list(properties),
        "additionalProperties": False}}]}


def json_answer(rng):
    kind = rng.randrange(4)
    if kind == 0:  # the answer to a question, wrapped
        question, answer, known = language.base_question(rng)
        key = rng.choice(["answer", "result", "value"])
        number = answer.isdigit()
        final = {key: int(answer) if number else answer}
        return Item("json", f"{key} {question}", question, compact(final), ("", known, f"{known}. As JSON with {key}"),
                    match="json", developer=response_format(key, {key: "integer" if number else TEXT}))
    name = person(rng)
    fields = rng.sample(list(FIELDS), rng.randint(1, 3))
    values = {f: FIELDS[f][1](rng) for f in fields}
    order = list(fields)
    rng.shuffle(order)
    text = " ".join(FIELDS[f][2].replace("{not}", "" if values[f] is True else "not ").format(name=name, value=values[f])
                    for f in order)
    final = {"name": name} | values
    schema = response_format(rng.choice(["person", "user", "contact"]),
                             {"name": TEXT} | {f: FIELDS[f][0] for f in fields})
    question = text if rng.random() < 0.5 else rng.choice(["Extract the data: ", "Fill in the form: "]) + text
    listed = ", ".join(f"{k} {spoken(v)}" for k, v in final.items())
    return Item("json", f"{' '.join(fields)} {text}", question, compact(final), ("", f"Fields: {listed}",
                f"The schema has {', '.join(final)}. Fields: {listed}"), match="json", developer=schema)

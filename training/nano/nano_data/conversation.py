"""Items as harmony conversations for the trainer, and as lines of the evaluation suite."""

from . import language, numbers, tools
from .item import is_held_out

IDENTITY = "You are ChatGPT, a large language model trained by OpenAI."
CHANNELS = {"valid_channels": ["analysis", "commentary", "final"], "channel_required": True}
PYTHON = {"name": "python", "tools": [], "description": (
    "Use this tool to execute Python code in your chain of thought. The code will not be shown to the user. This tool "
    "should be used for internal reasoning, but not for code that is intended to be visible to the user (e.g. when "
    "creating plots, tables, or files).\n\nWhen you send a message containing Python code to python, it will be "
    "executed in a stateful Jupyter notebook environment. python will respond with the output of the execution or time "
    "out after 120.0 seconds. The drive at '/mnt/data' can be used to save and persist user files. Internet access for "
    "this session is UNKNOWN. Depends on the cluster.")}

# maker of items, share in the training data
FAMILIES = [
    (numbers.arithmetic, 10), (numbers.long_arithmetic, 12), (numbers.word_problem, 7), (numbers.units, 8),
    (numbers.dates, 8), (numbers.sorting, 8), (numbers.long_sorting, 9), (language.strings, 9),
    (language.long_strings, 7), (language.facts, 11), (language.instructions, 13), (language.chat, 2),
    (language.refusals, 4), (tools.functions, 17), (tools.python, 4), (tools.json_answer, 6),
]
TRAINED_ONLY = [(language.places, 3)]  # in the training data, and in no measure


def make_item(rng, maker, held_out):
    """An item of one side of the split."""
    while True:
        item = maker(rng)
        if is_held_out(item) == held_out:
            return item


def choose_maker(rng, families=FAMILIES):
    return rng.choices([maker for maker, _ in families], [share for _, share in families])[0]


def system_message(rng, effort, identity, python, short):
    """As the program writes it. A short one has the effort alone: it costs fewer tokens, and teaches the same."""
    content = {"type": "system_content", "reasoning_effort": effort.capitalize()}
    if python:
        content["tools"] = {"python": PYTHON}
    if identity or not short:
        content["model_identity"] = identity or IDENTITY
    if not short:
        date = f"{rng.randint(2024, 2029)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
        content |= {"knowledge_cutoff": "2024-06", "conversation_start_date": date, "channel_config": CHANNELS}
    return {"role": "system", "content": [content]}


def text(role, content, **fields):
    return {"role": role, **fields, "content": content}


def prompt_messages(item):
    messages = []
    if item.developer:
        messages.append({"role": "developer", "content": [{"type": "developer_content", **item.developer}]})
    for question, thought, answer in item.history:
        messages.append(text("user", question))
        if thought:  # dropped when it is rendered, and what it led to is then not trained on
            messages.append(text("assistant", thought, channel="analysis"))
        messages.append(text("assistant", answer, channel="final"))
    return messages + [text("user", item.question)]


def answer_messages(item, effort):
    messages = []
    if item.thought(effort):
        messages.append(text("assistant", item.thought(effort), channel="analysis"))
    for call in item.calls:
        if call.code is not None:
            messages.append(text("assistant", call.code, recipient="python", channel="analysis", content_type="code"))
            channel = "analysis"
        else:
            messages.append(text("assistant", tools.compact(call.arguments), recipient=call.recipient,
                                 channel="commentary", content_type="<|constrain|>json"))
            channel = "commentary"
        messages.append(text("tool", call.result, name=call.recipient, recipient="assistant", channel=channel))
    return messages + [text("assistant", item.answer, channel="final")]


PLAIN = [numbers.arithmetic, numbers.units, numbers.dates, language.facts, language.chat, language.strings]


def training_conversation(rng):
    """One line of the training data, and its family."""
    effort = rng.choice(["low", "medium", "high"])
    item = make_item(rng, choose_maker(rng, FAMILIES + TRAINED_ONLY), held_out=False)
    # Talk before the question; a question about the talk has its own.
    if not item.history and rng.random() < 0.12:
        for _ in range(rng.randint(1, 2)):
            before = make_item(rng, rng.choice(PLAIN), held_out=False)
            if not before.history:
                item.history.append((before.question, before.thought(effort), before.answer))
    system = system_message(rng, effort, item.identity, item.python, short=rng.random() < 0.75)
    return item.family, {"messages": [system] + prompt_messages(item) + answer_messages(item, effort)}


def suite_line(item, number):
    """One line of the evaluation suite: what is asked, what tools give back, what is right."""
    line = {"id": f"{item.family}-{number}", "family": item.family}
    if item.hard:
        line["hard"] = True
    if item.identity:
        line["identity"] = item.identity
    if item.python:
        line["tools"] = ["python"]
    line["messages"] = prompt_messages(item)
    if item.calls:
        line["calls"] = [{"recipient": c.recipient, "result": c.result}
                         | ({"arguments": c.arguments} if c.code is None else {"code": c.code}) for c in item.calls]
    return line | {"answer": item.answer} | ({"match": item.match} if item.match != "text" else {})

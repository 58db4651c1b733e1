"""Mistakes in a configuration, in one line that names the key, the value and the remedy."""

import re
from collections.abc import Sequence
from typing import Any

from spikeloom.pipelines.config.files import groups
from spikeloom.pipelines.config.words import suggest

SEVERAL = ("logger", "callbacks")  # groups of which several choices hold at once, as in logger=[csv,tensorboard]
LONGEST_LINE = 1200
KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
PLUGINS = {  # Hydra's launchers and sweepers -> what installs them
    "joblib": "pip install 'spikeloom[sweep]'", "optuna": "pip install 'spikeloom[sweep]'",
    "submitit_local": "pip install 'spikeloom[sweep]'", "submitit_slurm": "pip install 'spikeloom[sweep]'",
    "ray": "pip install hydra-ray-launcher", "rq": "pip install hydra-rq-launcher",
    "ax": "pip install hydra-ax-sweeper", "nevergrad": "pip install hydra-nevergrad-sweeper",
}  # fmt: skip


def explain(error: Exception, verb: str, overrides: Sequence[str]) -> str:
    """An error of Hydra or OmegaConf in one line."""
    text = _whole(error)
    key = next((m[1] for m in re.finditer(r"full_key: ([\w.]+)", text)), "")
    for rule in (_removed, _choice, _value, _unknown_key, _plugin, _missing, _sweep, _grammar, _file):
        if line := rule(text, key, verb, overrides):
            return line
    return f"{_last(error)} (`spikeloom {verb} --help` lists keys and choices)"


def _whole(error: BaseException) -> str:
    """The messages of an error and of all it came from, outermost first."""
    text, cause = str(error), error.__cause__ or error.__context__
    while cause is not None:
        text += f"\n{cause}"
        cause = cause.__cause__ or cause.__context__
    return text


def _last(error: BaseException) -> str:
    """The innermost message that says something, on one line."""
    found, cause = "", error
    while cause is not None:
        found = str(cause).strip() or found
        cause = cause.__cause__  # type: ignore[assignment]
    lines = [line for line in found.splitlines() if not re.match(r"\s*(full_key|object_type|reference_type)", line)]
    return " ".join(" ".join(lines).split()) or type(error).__name__


def _given(overrides: Sequence[str], key: str) -> str:
    """The override that names `key`, or nothing."""
    return next((o for o in overrides if re.match(rf"[+~]*{re.escape(key)}(@\w+)?(=|$)", o)), "")


def _removed(text: str, key: str, verb: str, overrides: Sequence[str]) -> str:
    """`~key` of a key that a dataclass needs."""
    from spikeloom.pipelines.config.manual import known_keys

    for override in overrides:
        removed = override.lstrip("~").partition("=")[0]
        if override.startswith("~") and removed in known_keys(verb):
            return f"{override}: {removed} cannot be removed; change it with {removed}=VALUE"
    return ""


def _choice(text: str, key: str, verb: str, overrides: Sequence[str]) -> str:
    """A group that was given something other than one of its choices."""
    known = groups()
    for override in overrides:
        group, _, value = override.lstrip("+").partition("=")
        if group not in known or (verb_group := known[group]) is None:
            continue
        listed = value.startswith("[") and group in SEVERAL
        bad = value in ("null", "", "true", "false") or bool(re.fullmatch(r"[\d.e+-]+", value))
        bad = bad or (value.startswith(("{", "[")) and not listed)
        if value == "null" and group == "experiment":
            continue
        if bad and value not in verb_group and not re.search(r"Could not override|LexerNoViable", text.split("\n")[0]):
            return f"{override}: {group} must be one of its choices, got {value!r}; choose from {', '.join(verb_group)}"
    match = re.search(r"Could not find '(?!hydra/)(?:experiment/\.\./)?([\w-]+)/([\w.-]+)'", text) or re.search(
        r"Could not (?:load|find) '(\w+)/([\w./-]+)'", text
    )
    if match and match[1] in known:
        choices = known[match[1]]
        return f"no {match[1]} called {match[2]!r}{suggest(match[2], choices)}; choose from {', '.join(choices)}"
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{match[1]} names several values; add -m for one run of each, or choose one"
    return ""


def _unknown_key(text: str, key: str, verb: str, overrides: Sequence[str]) -> str:
    match = re.search(
        r"Key '(\w+)' (?:not in|is not in struct)|Could not (?:override|append to config\. An item is already at|delete"
        r"(?: from config)?\.?[^']*) ?'([^']+)'", text,
    )  # fmt: skip
    if match is None:
        return ""
    full = match[2] or key or match[1]
    if "already at" in text:
        return f"{_given(overrides, full) or full}: {full} exists; change it with {full}=VALUE, without the +"
    from spikeloom.pipelines.config.manual import known_keys

    keys = known_keys(verb, overrides)
    if full in keys:
        return f"{_given(overrides, full) or full}: {full} does not take this value (`spikeloom {verb} --help`)"
    return f"unknown key {full}{suggest(full, keys)}; `spikeloom {verb} --help` lists the keys"


def _value(text: str, key: str, verb: str, overrides: Sequence[str]) -> str:
    """A value of another type than the key's."""
    given = _given(overrides, key)
    if match := re.search(r"Value '(.*?)'(?: of type '(\w+)')? could not be converted to (\w+)", text):
        return f"{given or f'{key}={match[1]}'}: {key} must be {KINDS.get(match[3], match[3])}, got {match[1]!r}"
    if match := re.search(r"Value '(.*?)' is not a valid bool", text):
        return f"{given or f'{key}={match[1]}'}: {key} must be true or false, got {match[1]!r}"
    if re.search(r"Non optional field cannot be assigned None|is not Optional|Incompatible value 'None'", text):
        return f"{given or f'{key}=null'}: {key} cannot be null; leave it out for the default"
    if re.search(r"is not a ListConfig, list or tuple", text):
        return f"{given or key}: {key} must be a list; write {key}=[VALUE,VALUE]"
    if match := re.search(r"(\w+) is not a subclass of (\w+)", text):
        return (
            f"{given or key}: {key} has keys of its own; write {key}.KEY=VALUE (`spikeloom {verb} --help` lists them)"
        )
    if match := re.search(r"Key .* is incompatible with \((\w+)\)", text):
        return f"{given or key}: the names in {key.rpartition('.')[0] or key} must be of type {match[1]}, as in {{1:2}}"
    if match := re.search(r"Cannot (?:convert|assign|merge) (.*?)(?: with| to|\n|$)", text):
        return (
            f"{given or key}: {key} does not take this kind of value (got {match[1].strip()}); "
            f"`spikeloom {verb} --help` shows its default"
        )
    if match := re.search(r"Environment variable '(\w+)' not found", text):
        return f"{given or key}: the environment variable {match[1]} is not set; set it, or give a value"
    return ""


def _plugin(text: str, key: str, verb: str, overrides: Sequence[str]) -> str:
    if match := re.search(r"Could not find '(hydra/(launcher|sweeper))/([\w.-]+)'", text):
        if match[3] not in PLUGINS:
            return (
                f"no {match[1]} called {match[3]!r}{suggest(match[3], PLUGINS)}; known are basic, {', '.join(PLUGINS)}"
            )
        return f"{match[1]}={match[3]} is not installed; {PLUGINS[match[3]]}"
    if match := re.search(r"Could not find '(hydra/\w+)/([\w.-]+)'", text):
        return f"no {match[1]} called {match[2]!r} (`spikeloom {verb} --info plugins` lists what is installed)"
    return ""


def _missing(text: str, key: str, verb: str, overrides: Sequence[str]) -> str:
    if match := re.search(r"[Mm]issing mandatory value: ([\w.]+)", text):
        return f"{match[1]} is needed; add {match[1]}=VALUE (`spikeloom {verb} --help`)"
    if match := re.search(r"You must specify '([\w/]+)'", text):
        return f"{match[1]} is needed; add {match[1]}=NAME with one of {', '.join(groups().get(match[1], []))}"
    return ""


def _sweep(text: str, key: str, verb: str, overrides: Sequence[str]) -> str:
    """Sweeps without values: `range(0,3,0)`, `choice()`."""
    if match := re.search(r"Sweep parameters '(.*?)' requires --multirun", text):
        return f"{match[1]} names several values; add -m for one run of each, or choose one"
    if re.search(r"[Rr]eturn value must be float-castable|No trials are completed", text):
        return f"{verb} has no number that a sweeper could make small; use -m with listed values instead"
    if match := re.search(r"BasicSweeper does not support sweep type : (\w+)_SWEEP", text):
        return f"{match[1].lower()}(…) needs a sweeper that searches; add hydra/sweeper=optuna"
    empty = next((o for o in overrides if re.search(r"=\s*(range|choice|glob|interval)\(", o)), "")
    if empty and re.search(
        r"step must be non-zero|range\(\) arg 3|must not be zero|division by zero|empty|at least", text
    ):
        return f"{empty}: the sweep has no values; use for example range(0,3) or 0,1,2"
    if empty and "=range(" in empty and re.search(r",\s*-?0+(\.0*)?\s*\)$", empty):
        return f"{empty}: the step of a range must not be 0; use for example range(0,3)"
    return ""


def _grammar(text: str, key: str, verb: str, overrides: Sequence[str]) -> str:
    """What cannot be parsed as an override."""
    if nameless := next((o for o in overrides if o.lstrip("+~").startswith("=")), ""):
        return f"{nameless!r} names no key; write key=value"
    if match := re.search(r"hydra\.mode=(\S+)", " ".join(overrides)):
        return f"hydra.mode={match[1]}: use RUN or MULTIRUN, or -m"
    found = re.search(
        r"LexerNoViableAltException: (.*)|mismatched input (.*)|no viable alternative (.*)|extraneous input (.*)|"
        r"token recognition error at: (.*)|missing (\S+ at .*)", text,
    )  # fmt: skip
    if found is None:
        return ""
    if special := next((o for o in overrides if re.fullmatch(r"[+~]*[\w./@]+=[^'\"]*[()?<>^|*\[\]{}$][^'\"]*", o)), ""):
        name, _, value = special.partition("=")
        return f"{special} has special characters; quote values twice: '{name}=\"{value}\"'"
    near = re.sub(r" expecting .*", "", next(group for group in found.groups() if group))
    return f"cannot read an override near {near.strip()}; quote values with special characters"


def _file(text: str, key: str, verb: str, overrides: Sequence[str]) -> str:
    if match := re.search(
        r"Additional config directory '(.*?)' not found|Primary config directory not found\.\n.*?'(.*?)'", text
    ):
        return f"no directory {match[1] or match[2]}; give --config-dir=DIR with files such as DIR/experiment/NAME.yaml"
    if match := re.search(r"Cannot find primary config '(.*?)'", text):
        return f"no configuration {match[1]}.yaml; give --config-name=NAME of a file in --config-dir=DIR"
    if match := re.search(r"Could not (?:load|find) '([^']+)'", text):
        return f"no configuration {match[1]}.yaml on the search path (`spikeloom {verb} --info searchpath`)"
    return ""


def refusal(error: Any) -> str:
    """The message of an error of ours on one line, of text that a terminal can show. Of what foreign files make too
    long, the beginning (what is wrong) and the end (what to do) are kept."""
    text = str(error)
    if found := re.match(r"Caught \w+ in DataLoader worker process.*\n[\w.]+: (.*)", text, re.DOTALL):
        text = found[1]  # the rest is where in our code
    line = " ".join(text.split()) or type(error).__name__
    line = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 300]} … {line[-297:]}"

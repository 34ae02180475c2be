"""Writes chat_templates.json and chat_snippets.json: what transformers' apply_chat_template makes of our templates.

In:    transformers 5.23.0, jinja2 3.1.6 (pinned; checked at the start), gguf for --smollm2; templates/*.jinja,
       chat_conversations.json, chat_snippets.txt beside this file.
Out:   the two JSON files beside it; the same bytes on every run. With --smollm2 FILE.gguf also templates/smollm2.jinja, SmolLM2's
       own template (Apache-2.0) as its GGUF file holds it.
Never: downloads anything; reads the clock (strftime_now tells 26 July 2024, the recipes' default).

Run:   python datasets/tests/golden/chat_templates.py [--smollm2 SmolLM2-135M-Instruct.Q4_1.gguf]
"""

import datetime
import json
import re
import sys
from pathlib import Path

import jinja2
import transformers
from transformers.utils.chat_template_utils import _compile_jinja_template, render_jinja_template

HERE = Path(__file__).resolve().parent
PINNED = {"transformers": "5.23.0", "jinja2": "3.1.6"}
DAY = datetime.datetime(2024, 7, 26)
BOS, EOS = "<s>", "</s>"


def compiled(source):
    template = _compile_jinja_template(source)
    template.environment.globals["strftime_now"] = DAY.strftime
    return template


def told(error):
    """An error as the tests compare it: raised or not; which one is told for the reader."""
    return {"raises": type(error).__name__}


def render(source, conversation, generate):
    """One conversation as apply_chat_template(tokenize=False) renders it."""
    try:
        compiled(source)
        texts, indices = render_jinja_template(
            conversations=[conversation["messages"]],
            tools=conversation.get("tools"),
            chat_template=source,
            add_generation_prompt=generate,
            return_assistant_tokens_mask="{% generation" in source or "{%- generation" in source,
            bos_token=BOS,
            eos_token=EOS,
        )
    except Exception as error:  # a template may raise whatever Python does
        return told(error)
    answer = {"text": texts[0]}
    if indices:
        answer["generation"] = indices[0]
    return answer


def templates():
    conversations = json.loads((HERE / "chat_conversations.json").read_text("utf-8"))
    rows = []
    for path in sorted((HERE / "templates").glob("*.jinja")):
        source = path.read_text("utf-8")
        for name, conversation in conversations.items():
            for generate in (False, True):
                row = {"template": path.stem, "conversation": name, "generate": generate}
                rows.append({**row, **render(source, conversation, generate)})
    return rows


def snippets():
    """chat_snippets.txt: one JSON object of variables, then a snippet a line; lines that begin with "# " are headings."""
    lines = (HERE / "chat_snippets.txt").read_text("utf-8").splitlines()
    lines = [line for line in lines if line and not line.startswith("# ")]
    variables, rows = json.loads(lines[0]), []
    for source in pieces(lines[1:]):
        try:
            rows.append({"source": source, "text": compiled(source).render(**variables)})
        except Exception as error:
            rows.append({"source": source, **told(error)})
    return {"variables": variables, "snippets": rows}


def pieces(lines):
    """⏎ stands for a line break; a line of nothing but expressions is as many snippets."""
    for line in lines:
        alone = line.startswith("{{ ") and "{%" not in line
        yield from re.split(r"(?<=}})[ |]+(?={{ )", line) if alone else [line.replace("⏎", "\n")]


def write(name, value):
    if isinstance(value, list):
        body = "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in value) + "\n]\n"
    else:
        rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in value["snippets"])
        head = json.dumps(value["variables"], ensure_ascii=False)
        body = '{"variables": ' + head + ',\n"snippets": [\n' + rows + "\n]}\n"
    (HERE / name).write_text(body, "utf-8", newline="\n")
    print(f"{name}: {len(body.encode())} bytes")


def smollm2(gguf_file):
    import gguf

    field = gguf.GGUFReader(gguf_file).get_field("tokenizer.chat_template")
    (HERE / "templates" / "smollm2.jinja").write_text(field.contents(), "utf-8", newline="\n")


def main():
    found = {"transformers": transformers.__version__, "jinja2": jinja2.__version__}
    if found != PINNED:
        sys.exit(f"needs {PINNED}, found {found}")
    if sys.argv[1:2] == ["--smollm2"]:
        smollm2(sys.argv[2])
    write("chat_templates.json", templates())
    write("chat_snippets.json", snippets())


if __name__ == "__main__":
    main()

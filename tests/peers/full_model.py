"""A full training run's model/ folder in transformers: loads without missing tensors and answers the held-out rows.

Run:   python tests/peers/full_model.py RUN/model HELD_OUT.jsonl ROWS
Out:   how many of the first ROWS rows are answered exactly by greedy decoding; exit 1 if a tensor is missing or unexpected.
"""

import json
import sys

import torch
import transformers


def main():
    """Loads, answers, counts."""
    folder, rows_file, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, local_files_only=True
    )
    problems = {key: value for key, value in report.items() if value and key != "error_msgs"}
    problems = {key: value for key, value in problems.items() if set(value) != {"lm_head.weight"}}
    print("loading:", problems or "every tensor found")
    right = 0
    rows = [json.loads(line) for line in open(rows_file)][:count]
    for row in rows:
        *asked, answer = row["messages"]
        ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        out = model.generate(**ids, max_new_tokens=40, do_sample=False)
        text = tokenizer.decode(out[0, ids["input_ids"].shape[1]:], skip_special_tokens=True)
        right += text.strip() == answer["content"].strip()
    print(f"exact answers: {right}/{len(rows)}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()

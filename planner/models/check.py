"""Counts every model of models.toml a second time: transformers builds the networks without memory (meta device).

Usage: python check.py, with torch and transformers 5 installed. One line a model; exit status 1 if a count differs.
Never: downloads weights or configurations.
"""

import json
import pathlib
import sys
import tomllib

import torch
import transformers


def count(config: dict) -> int:
    """Parameters of the network that `config` describes, without prediction modules, a tied head once."""
    config = {key: value for key, value in config.items() if key not in ("quantization_config", "model_type")}
    # DeepSeek: this program leaves the multi-token prediction module out.
    config.pop("num_nextn_predict_layers", None)
    network = getattr(transformers, config["architectures"][0])
    settings = network.config_class(**config)
    settings.pad_token_id = None
    if hasattr(settings, "num_mtp_layers"):
        settings.num_mtp_layers = 0
    with torch.device("meta"):
        model = network(settings)
    # The router's correction is a buffer there and a tensor of the published files.
    corrections = sum(buffer.numel() for name, buffer in model.named_buffers() if "correction" in name)
    return sum(tensor.numel() for tensor in model.parameters()) + corrections


def main() -> int:
    text = (pathlib.Path(__file__).parent / "models.toml").read_text(encoding="utf-8")
    wrong = 0
    for entry in tomllib.loads(text)["model"]:
        found, published = count(json.loads(entry["config"])), entry.get("published_parameters")
        verdict = {None: "no exact figure published", found: "equal"}.get(published, f"published {published}")
        wrong += verdict.startswith("published")
        print(entry["name"], found, verdict, flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

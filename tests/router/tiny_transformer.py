"""A transformer's folder of two layers with chance for weights, and a classifier that is trained on it in a second."""

from pathlib import Path
from typing import Any

from conclave.router.train.rows import Row

WORDS = (
    *("which", "tell", "me", "about", "hello", "my", "a", "please", "python", "function", "court", "contract"),
    *("equation", "sum", "question", "long", "what", "is", "the", "of", "how", "do", "i", "write"),
)
ROWS = [
    Row(f"{start} {word} {number}", category, source)
    for category, word in (("code", "python function"), ("law", "court contract"), ("math", "equation sum"))
    for source, start in (("exam", "Which"), ("chat", "tell me about"), ("forum", "hello, my"))
    for number in range(6)
]


def transformer(folder: Path, *, seed: int = 0, **config: Any) -> Path:
    """Write a folder as sentence-transformers does."""
    import torch  # noqa: PLC0415  the tests that call this skip without it
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors  # noqa: PLC0415
    from transformers import BertConfig, BertModel  # noqa: PLC0415

    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106  a token, no password
    tokenizer.normalizer = normalizers.BertNormalizer()  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    said = {"vocab_size": len(vocabulary), "max_position_embeddings": 40, **sizes, **config}
    BertModel(BertConfig(**said)).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def classifier(folder: Path, encoder: Path) -> Path:
    """Write a classifier of three categories that needs the transformer in `encoder`."""
    from conclave.router.train.run import write  # noqa: PLC0415  the extra `train`
    from conclave.router.transformer import TransformerEncoder  # noqa: PLC0415

    folder.mkdir()
    opened = TransformerEncoder.open(encoder)
    write(ROWS, folder, trained_on={"rows": "none"}, say=lambda _: None, transformer=opened)
    return folder

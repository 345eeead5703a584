"""A tokenizer without a vocabulary."""


class CharTokenizer:
    """A token for every character, and a chat template of nothing but line breaks; `seen` are all texts."""

    def __init__(self):
        self.seen = []

    def __call__(self, text, add_special_tokens=True, **options):
        self.seen.append(text)
        return {"input_ids": [ord(c) for c in text]}

    def encode(self, text, add_special_tokens=True):
        return self(text)["input_ids"]

    def decode(self, ids, **options):
        return "".join(map(chr, ids))

    def apply_chat_template(self, messages, **options):
        return "".join(f"{message['content']}\n" for message in messages)

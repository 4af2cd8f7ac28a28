"""Converted models in safetensors files: small, mapped into memory, free of code."""

from lowbit.files._errors import PackedFileError
from lowbit.files._load import PackedInfo, load_packed, packed_info
from lowbit.files._save import save_packed

__all__ = ["PackedFileError", "PackedInfo", "load_packed", "packed_info", "save_packed"]

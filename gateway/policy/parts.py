"""The policy's `parts`: what becomes of the images, files and recordings in a request. A value, checked for shape only.

What each setting does to a part is in `reading.py`.
"""

from typing import Literal, TypeAlias

from pydantic import Field

from conclave.gateway.policy.part import Part

Remote: TypeAlias = Literal["allow", "refuse"]


class ImageParts(Part):
    """What becomes of images."""

    mode: Literal["pass", "reencode", "refuse"] = Field(
        default="reencode",
        description="`reencode`: the expert gets the same picture, made anew from its pixels; `pass`: it gets what was "
        "sent, unread; `refuse`: none is taken.",
    )
    most_bytes: int = Field(default=16_777_216, ge=1024, le=268_435_456, description="The largest image, decoded.")
    most_pixels: int = Field(
        default=50_000_000,
        ge=1,
        le=100_000_000,
        description="Width times height, looked at before decoding.",
    )
    most_frames: int = Field(default=100, ge=1, le=10_000, description="Frames; only the first one goes on.")
    mismatch: Literal["correct", "refuse"] = Field(
        default="correct", description="An image of another type than it says: `correct` names its true type instead."
    )
    remote: Remote = Field(
        default="allow", description="`https://` addresses, which the expert's provider fetches and the gateway never."
    )


class FileParts(Part):
    """What becomes of files."""

    mode: Literal["pass", "read", "text", "refuse"] = Field(
        default="read",
        description="`read`: the checks of `defences` look at the text inside; `text`: and the expert gets that text, "
        "fenced, in place of the file; `pass`: it goes on unread; `refuse`: none is taken.",
    )
    most_bytes: int = Field(default=16_777_216, ge=1024, le=268_435_456, description="The largest file, decoded.")
    most_unpacked_bytes: int = Field(
        default=104_857_600, ge=1024, le=1_073_741_824, description="What a packed document may unpack to, all of it."
    )
    most_pages: int = Field(default=500, ge=1, le=10_000, description="Pages of a PDF.")
    most_chars: int = Field(default=500_000, ge=1, le=10_000_000, description="Characters of text in one file.")
    unknown: Literal["allow", "refuse"] = Field(
        default="refuse", description="Types that nothing here can read; `allow`: they go on unread."
    )
    remote: Remote = Field(
        default="allow", description="`file_id`: a file that the expert's provider has, and the gateway cannot see."
    )


class AudioParts(Part):
    """What becomes of recordings."""

    mode: Literal["pass", "refuse"] = Field(
        default="pass",
        description="`pass`: they go on if they are what they say; `refuse`: none is taken.",
    )


class PartSettings(Part):
    """What becomes of what is no text."""

    images: ImageParts = Field(default_factory=ImageParts, description="What becomes of images.")
    files: FileParts = Field(default_factory=FileParts, description="What becomes of files.")
    audio: AudioParts = Field(default_factory=AudioParts, description="What becomes of recordings.")
    unread: Literal["annotate", "refuse"] = Field(
        default="annotate",
        description="What should be read and cannot, because the extra `ingest` is not installed: `annotate` lets it "
        "go on and tells the caller.",
    )
    on_error: Literal["block", "allow"] = Field(
        default="block",
        description="What it means for the request that a part cannot be read: broken, too slow.",
    )
    timeout_s: float = Field(
        default=10.0, gt=0, le=120, description="How long reading all parts of one request may take."
    )

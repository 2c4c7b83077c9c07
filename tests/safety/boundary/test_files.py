"""Base64 under its caps, addresses that lead inside, archives that grow."""

import base64
import io
import zipfile

import pytest
from documents import data_url

from conclave.safety.boundary.files import PartError, check_address, check_archive, from_base64, from_url

MB = 1_000_000


def archive(entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as made:
        for name, content in entries.items():
            made.writestr(name, content)
    return out.getvalue()


def kind_of(error: pytest.ExceptionInfo[PartError]) -> str:
    return error.value.kind


def test_a_data_url_gives_bytes_and_what_is_said_of_them() -> None:
    content = from_url(data_url("image/png;charset=x", b"abc"), most_bytes=100)
    assert content is not None
    assert (content.data, content.declared) == (b"abc", "image/png")


def test_an_address_is_no_data_url() -> None:
    assert from_url("https://example.com/a.png", most_bytes=100) is None


@pytest.mark.parametrize(
    "url",
    ["data:image/png,abc", "data:image/png;base64", "data:;base64,", "data:image/png;base64,a", "data:x;base64,@@@@"],
)
def test_a_broken_data_url_is_refused(url: str) -> None:
    with pytest.raises(PartError) as error:
        from_url(url, most_bytes=100)
    assert kind_of(error) == "malformed"


@pytest.mark.parametrize("encoded", ["\u00e9" * 8, "YWJj\0", "YWJ", "YW==Jj", "-_-_", "\ud800"], ids=ascii)
def test_what_is_no_base64_is_refused(encoded: str) -> None:
    with pytest.raises(PartError) as error:
        from_base64(encoded, most_bytes=100)
    assert kind_of(error) == "malformed"


def test_base64_in_lines_is_base64() -> None:
    assert from_base64("YW\r\nJj\n", most_bytes=3) == b"abc"


@pytest.mark.parametrize("size", [101, 102, 103, 10_000])
def test_more_than_the_cap_is_refused(size: int) -> None:
    with pytest.raises(PartError) as error:
        from_base64(base64.b64encode(b"x" * size).decode(), most_bytes=100)
    assert kind_of(error) == "too_large"


def test_the_cap_itself_passes_even_in_lines() -> None:
    assert len(from_base64(base64.encodebytes(b"x" * 1_000).decode(), most_bytes=1_000)) == 1_000


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.png",
        "ftp://example.com/a.png",
        "file:///etc/passwd",
        "https://127.0.0.1/a.png",
        "https://127.1/a.png",
        "https://2130706433/a.png",
        "https://0x7f.1/a.png",
        "https://0177.0.0.1/a.png",
        "https://10.0.0.8/a.png",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/a.png",
        "https://[::ffff:10.0.0.1]/a.png",
        "https://[64:ff9b::7f00:1]/a.png",
        "https://[2002:7f00:1::]/a.png",
        "https://[fe80::1%25eth0]/a.png",
        "https://localhost/a.png",
        "https://LOCALHOST./a.png",
        "https://metadata.google.internal/a.png",
        "https://printer.local/a.png",
        "https://vault/a.png",
        "https://\u2460\u2461\u2466.0.0.1/a.png",
        "https://user:password@example.com/a.png",
    ],
)
def test_an_address_that_leads_inside_is_refused(url: str) -> None:
    with pytest.raises(PartError) as error:
        check_address(url)
    assert kind_of(error) == "remote"


@pytest.mark.parametrize(
    "url",
    [
        "https://",
        "https://[::1",
        "https://a.example:0/",
        "https://a.example:99999/",
        "https://a\\b.example/",
        "https://a.example/a b",
    ],
)
def test_an_address_that_cannot_be_read_is_refused(url: str) -> None:
    with pytest.raises(PartError) as error:
        check_address(url)
    assert kind_of(error) == "malformed"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a.png?w=1#x",
        "https://8.8.8.8/a.png",
        "https://[2606:4700::1111]/a.png",
        "https://b\u00fccher.example/a.png",
    ],
)
def test_a_public_address_passes(url: str) -> None:
    check_address(url)


def test_an_archive_is_as_large_as_what_comes_out_of_it() -> None:
    assert check_archive(archive({"a": b"x" * 500, "b": b"y" * 700}), most_bytes=2_000) == 1_200


def test_an_archive_with_a_hostile_ratio_is_refused_by_its_head() -> None:
    with pytest.raises(PartError) as error:
        check_archive(archive({"a": b"\0" * 40 * MB}), most_bytes=1_000 * MB)
    assert kind_of(error) == "bomb"


def test_an_archive_that_unpacks_to_too_much_is_refused() -> None:
    noise = {str(number): bytes(range(256)) * 400 for number in range(20)}
    with pytest.raises(PartError) as error:
        check_archive(archive(noise, zipfile.ZIP_STORED), most_bytes=2 * MB)
    assert kind_of(error) == "bomb"


def test_a_head_that_lies_about_ten_gigabytes_is_not_believed() -> None:
    """The size in both heads says 100 bytes; what comes out is counted."""
    made = archive({"a": b"\0" * 3 * MB})
    lying = made.replace((3 * MB).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    assert lying != made
    with pytest.raises(PartError) as error:
        check_archive(lying, most_bytes=MB)
    assert kind_of(error) in {"bomb", "truncated"}


def test_ten_gigabytes_by_their_head_are_refused_without_unpacking() -> None:
    made = archive({"a": b"\0" * 3 * MB})
    claiming = made.replace((3 * MB).to_bytes(4, "little"), (0xF0000000).to_bytes(4, "little"))
    with pytest.raises(PartError) as error:
        check_archive(claiming, most_bytes=100 * MB)
    assert kind_of(error) == "bomb"


def test_archives_within_archives_end_at_two() -> None:
    inner = archive({"a": b"x"})
    once = archive({"b": inner})
    assert check_archive(once, most_bytes=MB) == len(inner) + 1
    with pytest.raises(PartError) as error:
        check_archive(archive({"c": once}), most_bytes=MB)
    assert kind_of(error) == "bomb"


def test_what_is_nested_counts_to_the_same_total() -> None:
    inner = archive({"a": bytes(range(256)) * 100}, zipfile.ZIP_STORED)
    with pytest.raises(PartError) as error:
        check_archive(archive({"b": inner}), most_bytes=len(inner) + 1_000)
    assert kind_of(error) == "bomb"


def test_what_comes_after_something_nested_counts_with_it() -> None:
    noise = bytes(range(256)) * 100
    whole = archive({"a": archive({"b": noise}), "c": noise}, zipfile.ZIP_STORED)
    assert check_archive(whole, most_bytes=len(noise) * 3) > len(noise) * 2
    with pytest.raises(PartError) as error:
        check_archive(whole, most_bytes=len(noise) * 3 // 2)
    assert kind_of(error) == "bomb"


def test_entries_that_overlap_are_refused() -> None:
    made = archive({"a": b"0123456789" * 50, "b": b"9876543210" * 50}, zipfile.ZIP_STORED)
    end = made.rindex(b"PK\x05\x06")
    start = int.from_bytes(made[end + 16 : end + 20], "little")
    listed = made[start:end]
    doubled = made[:start] + listed * 3 + made[end:]
    size = len(listed) * 3
    at = start + size
    doubled = doubled[: at + 8] + (6).to_bytes(2, "little") * 2 + size.to_bytes(4, "little") + doubled[at + 16 :]
    with pytest.raises(PartError) as error:
        check_archive(doubled, most_bytes=10 * MB)
    assert kind_of(error) == "bomb"


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_a_compression_that_no_document_uses_is_refused(compression: int) -> None:
    with pytest.raises(PartError) as error:
        check_archive(archive({"a": b"x"}, compression), most_bytes=MB)
    assert kind_of(error) == "unknown_type"


@pytest.mark.parametrize("cut", [0, 4, 30, -10, -30])
def test_an_archive_cut_short_is_refused(cut: int) -> None:
    made = archive({"a": bytes(range(256)) * 10})
    with pytest.raises(PartError) as error:
        check_archive(made[:cut], most_bytes=MB)
    assert kind_of(error) == "truncated"


def test_an_error_never_repeats_what_was_sent() -> None:
    with pytest.raises(PartError) as error:
        check_address("https://secret-host/path-of-mine")
    assert "secret" not in str(error.value)

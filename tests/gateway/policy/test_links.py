"""The policy's `links`: which hosts may stand there, and that the checks of answers know them."""

import pytest
from pydantic import ValidationError

from conclave.gateway.policy.links import LinkSettings
from conclave.safety.output.api import Excerpt


def test_the_checks_know_the_policys_hosts() -> None:
    settings = LinkSettings(allow=("Nordwind-Bank.org.",), own_hosts=("52.1.2.3",))
    links, shell = settings.check("links"), settings.check("shell")
    assert (links.name, shell.name) == ("links", "shell")
    assert links.inspect(Excerpt("http://52.1.2.3/")) == []
    assert shell.inspect(Excerpt("pip install -i https://pypi.nordwind-bank.org/simple x", code=True)) == []


@pytest.mark.parametrize("host", ["https://example.com", "a b", "", "exa mple.com", "*.example.com", "x" * 300, "a..b"])
def test_what_is_no_host_is_refused_with_what_was_meant(host: str) -> None:
    with pytest.raises(ValidationError, match="must be a host"):
        LinkSettings(allow=(host,))

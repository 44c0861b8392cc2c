"""Addresses and settings that no request can go to."""

import pytest

from lavis.common.errors import ConfigError
from lavis.llm.config import read_llm

SECRET = "sk-test-very-secret-0123456789"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"base_url": "http://host:99999/v1"}, "the port is no number from 1 to 65535"),
        ({"base_url": "http://host:80a/v1"}, "the port is no number from 1 to 65535"),
        ({"base_url": "http://host:0/v1"}, "the port is no number from 1 to 65535"),
        ({"base_url": "host:8000/v1"}, "write http:// or https:// and a host"),
        ({"base_url": "http:///v1"}, "write http:// or https:// and a host"),
        ({"base_url": "http://[::1/v1"}, "is no address"),
        ({"base_url": "http://host/v1 "}, "has a blank or a line break in it"),
        ({"base_url": "http://host/v1/chat/completions"}, "leave out /chat/completions"),
        ({"base_url": "https://x.azure.com/openai/deployments/d?api-version=1"},
         "extra_query={api-version:"),
        ({"extra_query": {"key": SECRET}}, "'key' looks like a secret"),
        ({"extra_body": {"temperature": 1}}, "temperature is set by this program"),
        ({"extra_body": {"x": float("nan")}}, "cannot be written as JSON"),
        ({"server": " "}, "server: empty"),
        ({"max_server_wait": float("nan")}, "expected a finite number"),
        ({"timeout": 1e300}, "timeout: 1e.300 found, expected less than or equal to 1000000"),
    ],
)  # fmt: skip
def test_settings_that_reach_no_server_are_told(serve, settings, more, said):
    with pytest.raises(ConfigError, match=said) as error:
        read_llm(settings(serve(), **more))
    assert SECRET not in str(error.value)

"""Faults at the models' door. Found by contracts/test_fuzz.py."""

from contextlib import aclosing

import httpx2
import pytest

from gateways.errors import ModelRefused
from gateways.models.model import ModelCall
from gateways.models.openai_compatible import Endpoint, OpenAIModel


@pytest.mark.parametrize("key", ["sk-é", "密钥", "sk\x01", "sk\x7f"])
async def test_a_key_that_no_header_carries_is_refused(key: str) -> None:
    """It was a UnicodeEncodeError, so `llm-provider/verify` answered 500."""
    endpoint = Endpoint(base_url="http://127.0.0.1:9/v1", api_key=key, model="m")
    async with httpx2.AsyncClient() as client:
        deltas = OpenAIModel(endpoint, client).stream(ModelCall(messages=[]))
        async with aclosing(deltas):
            with pytest.raises(ModelRefused) as refused:
                await anext(deltas)
    assert key not in str(refused.value)

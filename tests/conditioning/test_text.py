"""The byte-level encoder: what it reads, what is cut, and that a text's neighbours do not matter."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from latent3d.conditioning.text import PADDING, START, ByteTextEncoderConfig, byte_tokens


def test_bytes_start_token_cut_and_padding():
    rows = byte_tokens(["ab", "", "abcdefgh"], 5).tolist()
    assert rows == [[START, 97, 98, PADDING, PADDING], [START] + 4 * [PADDING], [START, 97, 98, 99, 100]]


@given(st.lists(st.text(max_size=30), max_size=4))
def test_every_text_has_its_bytes(texts):
    rows = byte_tokens(texts, 16)
    assert rows.shape == (len(texts), 16)
    for text, row in zip(texts, rows.tolist(), strict=True):
        expected = text.encode("utf-8", "replace")[:15]
        assert bytes(number for number in row if number < 256) == expected


def test_tokens_of_a_text_do_not_depend_on_its_neighbours_and_padding_is_zero():
    encoder = ByteTextEncoderConfig.tiny().build()
    together = encoder(["a mug", "a red chair with arms", ""])
    alone = encoder(["a mug"])
    torch.testing.assert_close(together.tokens[:1], alone.tokens)
    torch.testing.assert_close(together.pooled[:1], alone.pooled)
    assert together.keep.sum(1).tolist() == [6, 12, 1]
    assert not together.tokens[~together.keep].any()
    assert together.tokens[together.keep].abs().min() > 0


def test_padding_is_not_seen():
    short = ByteTextEncoderConfig.tiny().build()
    long = ByteTextEncoderConfig.tiny().replace(length=20).build()
    state = short.state_dict()
    state["positions"] = torch.cat([state["positions"], torch.randn(8, 16)])
    long.load_state_dict(state)
    torch.testing.assert_close(long(["a mug"]).tokens[:, :6], short(["a mug"]).tokens[:, :6])


def test_every_parameter_learns():
    encoder = ByteTextEncoderConfig.tiny().build()
    out = encoder(["abc", "de"])
    (out.tokens.square().sum() + out.pooled.sum()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in encoder.parameters())


def test_order_of_letters_matters():
    pooled = ByteTextEncoderConfig.tiny().build()(["ab", "ba"]).pooled
    assert (pooled[0] - pooled[1]).abs().max() > 1e-3

"""Weights folders: round trips, sizes, and every way in which they can be wrong."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from latent3d import weights
from latent3d.config import Config
from latent3d.weights import find_shipped, load_into, load_module, load_weights, save_weights, weights_hash


@dataclass(frozen=True, kw_only=True)
class NetConfig(Config):
    width: int = 30

    def build(self):
        return net(self.width)


@dataclass(frozen=True, kw_only=True)
class OtherConfig(Config):
    depth: int = 1


def net(width=30):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, width), nn.BatchNorm1d(width), nn.Linear(width, 300))


@pytest.fixture
def saved(tmp_path):
    return save_weights(tmp_path / "w", net(), NetConfig(), {"licence": "Apache-2.0"}, max_shard_bytes=9000)


@pytest.mark.parametrize("limit", [4_000, 9_000, 1_000_000])
def test_round_trip_at_any_shard_size(tmp_path, limit):
    module = net()
    folder = save_weights(tmp_path / "w", module, NetConfig(), {"steps": 3}, max_shard_bytes=limit)
    state, config, card = load_weights(folder)
    assert set(state) == set(module.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert state["1.num_batches_tracked"].dtype == torch.int64
    assert NetConfig.from_dict(config) == NetConfig()
    assert card == {"steps": 3}
    sizes = [path.stat().st_size for path in folder.glob("*.safetensors")]
    assert max(sizes) <= limit
    assert (len(sizes) == 1) == (limit == 1_000_000)


def test_shards_are_plain_safetensors_and_the_index_says_where(saved):
    index = json.loads((saved / "weights.index.json").read_text())["weight_map"]
    for name, file in index.items():
        with safe_open(saved / file, "pt") as shard:
            assert name in shard.keys()  # noqa: SIM118 - not a dict
    whole = torch.cat([load_file(saved / index[n])[n] for n in index if n.startswith("2.weight#")])
    assert torch.equal(whole, net()[2].weight)


@pytest.mark.parametrize(("dtype", "kind"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_stored_half_loaded_float(tmp_path, dtype, kind):
    module = net()
    folder = save_weights(tmp_path / "w", module, NetConfig(), dtype=dtype)
    assert load_file(folder / "weights.safetensors")["0.weight"].dtype == kind
    state, _, card = load_weights(folder)
    assert state["0.weight"].dtype == torch.float32
    assert torch.equal(state["0.weight"], module[0].weight.to(kind).float())
    assert card == {}


def test_saving_replaces_the_folder_whole_or_leaves_it(saved):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    bad = net()
    bad[0].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"0\.weight holds values that are NaN or infinite"):
        save_weights(saved, bad, NetConfig())
    big = {"a": torch.tensor([1e6])}
    with pytest.raises(ValueError, match=r"too large for torch\.float16"):
        save_weights(saved, big, NetConfig(), dtype="fp16")
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    save_weights(saved, big, NetConfig())
    assert {path.name for path in saved.iterdir()} == {"config.json", "card.json", "weights.safetensors"}
    assert [path.name for path in saved.parent.iterdir()] == ["w"]


def test_wrong_requests_are_refused(tmp_path):
    with pytest.raises(ValueError, match="choose one of fp32, fp16, bf16"):
        save_weights(tmp_path / "w", net(), NetConfig(), dtype="int8")
    with pytest.raises(ValueError, match=r"0\.weight does not fit in shards of 100 bytes"):
        save_weights(tmp_path / "w", net(), NetConfig(), max_shard_bytes=100)
    with pytest.raises(ValueError, match="contains '#'"):
        save_weights(tmp_path / "w", {"a#b": torch.zeros(999, 9)}, NetConfig(), max_shard_bytes=1000)


def test_a_module_comes_back_from_its_folder_alone(saved, tmp_path):
    module, card = load_module(saved, NetConfig)
    assert all(
        torch.equal(a, b) for a, b in zip(module.state_dict().values(), net().state_dict().values(), strict=True)
    )
    assert card == {"licence": "Apache-2.0"}
    with pytest.raises(ValueError, match=r"the weights in '.*w' are not of the Other model of this version"):
        load_module(saved, OtherConfig)
    other = save_weights(tmp_path / "wide", net(31), NetConfig(), {})
    with pytest.raises(ValueError, match=r"do not fit|shape"):
        load_module(other, NetConfig)


def test_load_into_names_what_differs():
    module, state = net(), net(31).state_dict()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    del state["2.bias"]
    state["extra"] = torch.zeros(1)
    with pytest.raises(ValueError) as caught:
        load_into(module, state, "w.safetensors")
    text = str(caught.value)
    assert "w.safetensors" in text
    assert "missing: 2.bias" in text
    assert "unexpected: extra" in text
    assert "0.weight is (31, 7) instead of (30, 7)" in text
    assert "and 3 more" in text
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_load_into_casts_to_the_module():
    module = net().double()
    load_into(module, net().state_dict())
    assert module[0].weight.dtype == torch.float64


@pytest.mark.parametrize("kept", [0, 4, 200, -1])
def test_cut_off_files_are_named(saved, kept):
    file = sorted(saved.glob("*.safetensors"))[-1]
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match="cut off or damaged") as caught:
        load_weights(saved)
    assert str(file) in str(caught.value)


def test_altered_missing_and_foreign_files_are_named(saved, tmp_path):
    file = sorted(saved.glob("*.safetensors"))[0]
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match="sha256 differs"):
        load_weights(saved)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="copy or download the weights again"):
        load_weights(saved)
    (saved / "weights.index.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        load_weights(saved)
    head = json.loads((saved / "config.json").read_text()) | {"format": 7}
    (saved / "config.json").write_text(json.dumps(head))
    with pytest.raises(ValueError, match="weights format 7"):
        load_weights(saved)
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        load_weights(tmp_path)


def test_index_and_shards_must_agree(saved):
    path = saved / "weights.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["ghost"] = next(iter(index["weight_map"].values()))
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"does not match its shards .ghost"):
        load_weights(saved)


def test_hash_is_over_the_tensor_files(saved, tmp_path):
    data = b"".join(path.read_bytes() for path in sorted(saved.glob("*.safetensors")))
    assert weights_hash(saved) == hashlib.sha256(data).hexdigest()
    (saved / "card.json").write_text("{}")
    assert weights_hash(saved) == hashlib.sha256(data).hexdigest()
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        weights_hash(tmp_path)


def test_shipped_weights_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setenv("LATENT3D_WEIGHTS", str(tmp_path / "mine"))
    save_weights(tmp_path / "shipped" / "a", net(), NetConfig())
    save_weights(tmp_path / "mine" / "a", net(), NetConfig())
    save_weights(tmp_path / "mine" / "b", net(), NetConfig())
    assert find_shipped("a") == tmp_path / "shipped" / "a"
    assert find_shipped("b") == tmp_path / "mine" / "b"
    with pytest.raises(FileNotFoundError, match=r"no weights named 'c' .*there: a, b.*LATENT3D_WEIGHTS"):
        find_shipped("c")

import os
import shutil

import pytest
import torch

from agents.checkpoint import load_optimizer, save_optimizer, settle, whole_folder


def write(folder, text):
    with whole_folder(folder) as draft:
        (draft / "file").write_text(text)


def read(folder):
    return (folder / "file").read_text()


def test_a_folder_appears_whole(tmp_path):
    folder = tmp_path / "deep" / "checkpoint"
    with whole_folder(folder) as draft:
        (draft / "file").write_text("new")
        assert not folder.exists()
    assert read(folder) == "new"
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


def test_a_new_version_takes_the_place_of_the_old_one(tmp_path):
    folder = tmp_path / "checkpoint"
    write(folder, "old")
    (folder / "extra").write_text("only in the old one")
    write(folder, "new")
    assert read(folder) == "new"
    assert not (folder / "extra").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


class Killed(BaseException):
    """Stands for a process that vanished: nothing after it runs."""


def write_half(draft):
    (draft / "file").write_text("half")
    raise Killed


def test_a_kill_while_writing_leaves_the_old_version(tmp_path):
    folder = tmp_path / "checkpoint"
    write(folder, "old")
    with pytest.raises(Killed), whole_folder(folder) as draft:
        write_half(draft)
    settle(folder)
    assert read(folder) == "old"
    write(folder, "new")
    assert read(folder) == "new"


@pytest.mark.parametrize("renames_done", [0, 1, 2])
def test_a_kill_between_the_renames_loses_nothing(tmp_path, monkeypatch, renames_done):
    folder, rename, count = tmp_path / "checkpoint", os.rename, 0
    write(folder, "old")

    def dying_rename(source, target):
        nonlocal count
        if count == renames_done:
            raise Killed
        count += 1
        rename(source, target)

    def dying_rmtree(path, **_options):
        if path.exists():  # the old version, after both renames
            raise Killed

    monkeypatch.setattr(os, "rename", dying_rename)
    monkeypatch.setattr(shutil, "rmtree", dying_rmtree)
    with pytest.raises(Killed):
        write(folder, "new")
    monkeypatch.undo()
    settle(folder)
    assert read(folder) == ("new" if renames_done == 2 else "old")
    write(folder, "newest")
    assert read(folder) == "newest"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_settling_nothing_is_fine(tmp_path):
    settle(tmp_path / "never")
    assert not (tmp_path / "never").exists()


def make_optimizer(seed):
    torch.manual_seed(seed)
    layer = torch.nn.Linear(3, 2)
    return layer, torch.optim.AdamW(layer.parameters(), lr=0.1)


def step(layer, optimizer):
    layer(torch.ones(1, 3)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_an_optimizer_goes_on_where_it_was(tmp_path):
    layer, optimizer = make_optimizer(0)
    step(layer, optimizer)
    save_optimizer(optimizer, tmp_path / "optimizer.safetensors")
    copy, other = make_optimizer(1)
    copy.load_state_dict(layer.state_dict())
    load_optimizer(other, tmp_path / "optimizer.safetensors")
    step(layer, optimizer)
    step(copy, other)
    assert torch.equal(copy.weight, layer.weight)


def test_an_optimizer_that_never_stepped(tmp_path):
    _, optimizer = make_optimizer(0)
    save_optimizer(optimizer, tmp_path / "optimizer.safetensors")
    layer, other = make_optimizer(0)
    load_optimizer(other, tmp_path / "optimizer.safetensors")
    step(layer, other)
    assert other.state_dict()["state"]

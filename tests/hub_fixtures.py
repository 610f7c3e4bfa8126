"""What the tests of the Hub share: a server, a process that asks it, and what every refusal looks like."""

from pathlib import Path

import pytest
import torch
from hub_client import HubClient
from loopback_hub import HubServer

CARDS = Path(__file__).parents[1] / "hub_cards"
ALICE, BOB = "hf_alice", "hf_bob"
FACES = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(3))


def logits(model):
    with torch.no_grad():
        return model.eval()(FACES).logits


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def hub(place):
    users, orgs = {ALICE: "alice", BOB: "bob"}, {"org": ["alice"]}
    with HubServer(place / "server", users=users, orgs=orgs, part_size=1 << 20) as server:
        yield server


@pytest.fixture(scope="module")
def client(place, hub):
    (place / "client").mkdir()
    client = HubClient(place / "client", hub.url)
    yield client
    client.close()


@pytest.fixture(autouse=True)
def no_cuts(hub):
    yield
    hub.cuts = lambda method, path: False


def sent(hub, since=0):
    """Paths of uploads."""
    return [path for method, path, _ in hub.requests[since:] if method == "PUT"]


def files_of(hub, repo, revision="main", kind="models"):
    store = hub.store
    return store.tree(store.load(kind, repo), revision)[1]


def one_sentence(done, *parts, again=False):
    """A refusal; `again`: before it one sentence says, at once, that the Hub is asked again."""
    assert done.code == 2, done.err
    if again:
        first, done.err = done.err.split("\n", 1)
        assert first.endswith("Break off when you like: started again, this goes on where it was."), first
    assert done.err.startswith("error: ")
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert "Traceback" not in done.err
    for part in parts:
        assert part in done.err, done.err

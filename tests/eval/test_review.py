"""stylegate review: the page in a real browser, the server's door, and what is kept of the answers.

A test that drives the page needs Chromium on this machine, and is skipped where there is none.
"""

import dataclasses
import json
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from eval.lot.lot import locked_lot
from eval.policy import file as policyfile
from eval.promise import labels, store
from eval.promise.auditplan import read_audit_terms
from eval.promise.disagreements import ADJUDICATION, disagreements, notes_on_disagreements
from eval.review import begin_calibration_queue, what_is_asked_in_words
from eval.reviewing import guard, server, session, stream
from eval.reviewing.answers import SaveRequest
from eval.reviewing.queues import ReviewPicture, ReviewQueue, disagreement_queue
from eval.reviewing.session import ReviewSession
from stylegate import files
from stylegate.cli import compose_hydra_config, quote_text_value, valid_overrides_and_problems
from stylegate.configcheck import checked_config
from tests.conftest import command
from tests.eval.people import ALL_IN_REVIEW, ALL_PASS, CALIBRATED, label, verdicts_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TRAITS = {"eyes": "laser", "hat": "crown"}
POLICY = policyfile.read_policy("default")


def make_queue(folder: Path, count: int = 12, known: int = 3, size: int = 32) -> ReviewQueue:
    """A queue of small pictures, each of another colour."""
    made = []
    for number in range(count + known + 2):
        path = folder / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (size, size), (number * 7 % 256, number * 31 % 256, number * 57 % 256)).save(path)
        made.append(ReviewPicture(files.sha256_of_file(path), path, path.name, f"<b>creature</b> {number}", TRAITS))
    asked = {picture.sha256: picture for picture in made[:count]}
    return ReviewQueue(
        out=folder.parent / "out",
        title="a lot",
        policy=POLICY,
        pictures=asked,
        checks={sha256: ["style"] for sha256 in asked},
        board=made[-2:],
        known_rejects=made[count:-2],
        trait_values={"eyes": ["laser", "sleepy"], "hat": ["crown", "none"]},
        next_words="stylegate gate batch=a",
        second_look_share=0.0,
    )


@pytest.fixture
def queue(tmp_path: Path) -> ReviewQueue:
    (tmp_path / "out").mkdir()
    return make_queue(tmp_path / "pictures")


@pytest.fixture
def client(queue: ReviewQueue) -> TestClient:
    return TestClient(server.review_application(ReviewSession(queue)), "http://127.0.0.1:8642", follow_redirects=False)


ORIGIN = {"origin": "http://127.0.0.1:8642"}


def told(client: TestClient, who: str = "anna") -> dict[str, Any]:
    return client.get("/api/review", params={"who": who}).json()


def said(opened: dict[str, Any], sha256: str, verdict: str = "accept", **more: Any) -> dict[str, Any]:
    plain = {"id": str(uuid.uuid4()), "kind": "label", "who": "anna", "sha256": sha256, "verdict": verdict}
    return plain | {"asked": opened["pictures"][sha256]["asked"]} | more


def send(client: TestClient, opened: dict[str, Any], *answers: dict[str, Any]) -> dict[str, Any]:
    body = {"review": opened["review"], "since": 0, "answers": list(answers)}
    reply = client.post("/api/save", json=body, headers=ORIGIN)
    assert reply.status_code == 200, reply.text
    return reply.json()


def kept(queue: ReviewQueue) -> list[labels.StoredLabel]:
    return labels.read_stored_labels(queue.out, "review")


def test_an_answer_is_stored_once_with_what_it_was_asked_for(client: TestClient, queue: ReviewQueue) -> None:
    opened = told(client)
    first, second = [sha256 for sha256 in opened["order"] if sha256 in queue.pictures][:2]
    answer = said(opened, first, "reject", why="artefacts", reason="artefacts", seconds=1.5)
    assert send(client, opened, answer)["saved"] == [answer["id"]]
    assert send(client, opened, answer, answer)["saved"] == [answer["id"]] * 2, "sent again, it is the same answer"
    (row,) = kept(queue)
    assert (row.id, row.verdict, row.checks, row.policy_sha256) == (answer["id"], "reject", ["style"], POLICY.sha256)
    assert (row.asked_for, row.reason, row.seconds, row.guideline) == ("borderline", "artefacts", 1.5, POLICY.guideline)
    other = said(opened, second, id=answer["id"])
    assert send(client, opened, other)["refused"][0]["why"] == "its id is of another answer"
    unknown = said(opened, first) | {"sha256": "0" * 64}
    assert send(client, opened, unknown)["refused"][0]["why"] == "this picture is not asked about"
    assert len(kept(queue)) == 1


def test_undo_reaches_back_as_far_as_one_likes_and_only_ones_own(client: TestClient, queue: ReviewQueue) -> None:
    opened = told(client)
    three = [said(opened, sha256) for sha256 in list(queue.pictures)[:3]]
    undo = [said(opened, a["sha256"], kind="undo", undoes=a["id"]) for a in three]
    of_another = undo[0] | {"who": "bob", "id": str(uuid.uuid4())}
    found = send(client, opened, *three, of_another, undo[0], undo[2])
    assert [r["why"] for r in found["refused"]] == ["another reviewer gave this label"]
    assert send(client, opened, undo[0])["saved"] == [undo[0]["id"]], "an undo that is sent again"
    valid = labels.valid_labels_by_sha256(queue.out, "review", POLICY)
    assert set(valid) == {three[1]["sha256"]}
    assert [row["id"] for row in told(client)["history"]] == [three[1]["id"]]
    again = ReviewSession(queue)
    assert again.count_decided() == 1 and again.is_open_for("anna", three[0]["sha256"])


def test_a_page_is_told_what_another_process_stored_before_a_second_page_was_opened(queue: ReviewQueue) -> None:
    here, there = (ReviewSession(queue) for _ in range(2))
    client = TestClient(server.review_application(there), "http://127.0.0.1:8642", follow_redirects=False)
    opened = told(client)
    answer = said(opened, next(iter(queue.pictures)))
    undo = said(opened, answer["sha256"], kind="undo", undoes=answer["id"])
    send(client, opened, answer)
    here.initial_page_data("bob")
    assert here.changes_since_and_whether_ended(0, "carol")["changed"] == {answer["sha256"]: True}
    for _ in range(2):
        send(client, opened, undo)
    assert there.num_rows == 2, "an undo that was sent again is no row"


def test_an_answer_counts_for_the_checks_that_it_was_asked_about(client: TestClient, queue: ReviewQueue) -> None:
    opened = told(client)
    sha256 = next(iter(queue.pictures))
    queue.checks[sha256] = ["margin", "style"]
    assert "look afresh" in send(client, opened, said(opened, sha256))["refused"][0]["why"]
    body = {"review": "0" * 64, "since": 0, "answers": []}
    assert client.post("/api/save", json=body, headers=ORIGIN).status_code == 409


def test_known_rejects_measure_the_reviewer_and_decide_nothing(queue: ReviewQueue) -> None:
    session = ReviewSession(queue)
    (hidden,) = queue.known_rejects_for("anna")
    opened = session.initial_page_data("anna")
    assert hidden.sha256 in opened["order"] and len(opened["order"]) == 13
    body = {"review": opened["review"], "since": 0, "answers": [said(opened, hidden.sha256)]}
    session.save_answers(SaveRequest.model_validate(body))
    (row,) = kept(queue)
    assert row.asked_for == "known" and not row.is_neither_withdrawn_nor_reviewer_test
    assert hidden.sha256 not in session.initial_page_data("anna")["order"] and session.count_decided() == 0


def test_two_reviewers_have_orders_of_their_own_and_see_nothing_of_each_other(
    client: TestClient, queue: ReviewQueue
) -> None:
    anna, bob = told(client), told(client, "bob")
    assert anna["order"] != bob["order"] and told(client)["order"] == anna["order"]
    shared = next(s for s in anna["order"] if s in bob["order"])
    send(client, anna, said(anna, shared, "reject"))
    assert shared not in told(client, "bob")["order"]
    assert "reject" not in json.dumps({k: v for k, v in told(client, "bob").items() if k != "guideline"})
    aside = next(s for s in anna["order"] if s in bob["order"] and s != shared)
    send(client, anna, said(anna, aside, "unsure", why="retouch"))
    assert aside not in told(client)["order"] and aside in told(client, "bob")["order"]
    send(client, bob, said(bob, aside, "unsure", who="bob"))
    assert not any(aside in told(client, who)["order"] for who in ("anna", "bob")), "each put it aside"
    send(client, carla := told(client, "carla"), said(carla, aside, who="carla"))
    assert labels.valid_labels_by_sha256(queue.out, "review", POLICY)[aside].verdict == "accept"


def test_the_console_says_that_nothing_is_left_to_decide(client: TestClient, queue: ReviewQueue) -> None:
    assert not any("nothing is left" in line for line in what_is_asked_in_words(ReviewSession(queue)))
    opened = told(client)
    send(client, opened, *(said(opened, sha256) for sha256 in queue.pictures))
    first, second = what_is_asked_in_words(ReviewSession(queue))
    assert first.startswith("review: 0 pictures of ") and second.startswith(
        "nothing is left to decide. Next: stylegate gate batch=a"
    )
    opened = told(client, "ben")
    answer = said(told(client), next(iter(queue.pictures)), "reject", who="ben")
    send(client, opened, answer)
    (line,) = what_is_asked_in_words(ReviewSession(queue))
    assert line.startswith("review: 1 picture of "), "a third one is asked what two disagree about"


def test_a_share_is_looked_at_twice_and_a_third_reviewer_settles_disagreements(queue: ReviewQueue) -> None:
    twice = dataclasses.replace(queue, second_look_share=1.0, known_rejects=[])
    client = TestClient(server.review_application(room := ReviewSession(twice)), "http://127.0.0.1:8642")
    anna, bob = told(client), told(client, "bob")
    same, other = list(queue.pictures)[:2]
    send(client, anna, said(anna, same), said(anna, other))
    assert {same, other} <= set(told(client, "bob")["order"]) and not {same, other} & set(told(client)["order"])
    send(client, bob, said(bob, same, who="bob"), said(bob, other, "reject", who="bob"))
    carla = told(client, "carla")
    assert other in carla["order"] and same not in carla["order"] and room.num_disagreements() == 1
    send(client, carla, said(carla, other, "reject", who="carla"))
    assert kept(queue)[-1].asked_for == "adjudication" and room.num_disagreements() == 0
    assert other not in told(client, "dora")["order"]


def test_what_one_would_retouch_and_another_accepts_is_settled_by_a_third(queue: ReviewQueue) -> None:
    """The page and the gate count the same disagreements."""
    client = TestClient(server.review_application(room := ReviewSession(queue)), "http://127.0.0.1:8642")
    aside = next(iter(queue.pictures))

    def unsettled() -> list[str]:
        found = [one.sha256 for one in disagreements(queue.out, "review", POLICY) if one.settled is None]
        assert room.num_disagreements() == len(found)
        return found

    send(client, anna := told(client), said(anna, aside, "unsure", why="retouch"))
    assert unsettled() == []
    send(client, bob := told(client, "bob"), said(bob, aside, who="bob"))
    carla = told(client, "carla")
    assert unsettled() == [aside] and aside in carla["order"] and aside not in told(client)["order"]
    send(client, carla, said(carla, aside, who="carla"))
    assert unsettled() == [] and kept(queue)[-1].asked_for == "adjudication"


def test_page_and_gate_agree_about_a_label_that_a_table_adds_after_an_adjudication(queue: ReviewQueue) -> None:
    """Bob, who rejected the picture, settles it as accepted; an adjudication is no opinion of his, and Dora's label
    opens it again: it was not given to settle anything.
    """
    room, one = ReviewSession(queue), next(iter(queue.pictures))
    given: list[tuple[str, labels.LabelName, str]] = [
        ("anna", "accept", ""),
        ("bob", "reject", ""),
        ("bob", "accept", ADJUDICATION),
        ("dora", "accept", ""),
    ]
    counted = []
    for who, verdict, asked_for in given:
        new = labels.label_with_policy(label(one, verdict, who), POLICY, checks=queue.checks[one], asked_for=asked_for)
        labels.append_labels(queue.out, "review", [new])
        room.read_what_others_added()
        counted.append(room.num_disagreements())
        assert bool(counted[-1]) == bool(notes_on_disagreements(queue.out, POLICY)), who
    assert counted == [0, 1, 0, 1]
    assert room.is_open_for("carla", one) and not room.is_open_for("bob", one)


@pytest.mark.parametrize("second", ["reject", "unsure"])
def test_what_reviewers_disagree_about_is_a_queue_of_its_own(queue: ReviewQueue, second: str) -> None:
    twice = dataclasses.replace(queue, second_look_share=1.0)
    client = TestClient(server.review_application(ReviewSession(twice)), "http://127.0.0.1:8642")
    other = next(iter(queue.pictures))
    send(client, anna := told(client), said(anna, other, why="fine"))
    send(client, bob := told(client, "bob"), said(bob, other, second, who="bob", why="blurred"))
    found = disagreement_queue(twice, disagreements(queue.out, "review", POLICY))
    client = TestClient(server.review_application(room := ReviewSession(found)), "http://127.0.0.1:8642")
    opened = told(client)
    assert opened["order"] == [other] == told(client, "dora")["order"] and "bob" not in json.dumps(opened)
    opinions = [{"verdict": "accept", "why": "fine"}, {"verdict": second, "why": "blurred"}]
    assert opened["pictures"][other]["opinions"] == opinions
    label = said(opened, other, "reject")
    assert send(client, opened, label)["saved"] and told(client)["order"] == [] and not room.num_disagreements()
    assert kept(queue)[-1].asked_for == "adjudication"
    assert disagreement_queue(twice, disagreements(queue.out, "review", POLICY)).pictures == {}
    send(client, opened, said(opened, other, kind="undo", undoes=label["id"]))
    assert told(client)["order"] == [other]


def test_a_reviewer_is_shown_some_pictures_again_and_is_not_told(queue: ReviewQueue, monkeypatch) -> None:
    monkeypatch.setattr(session, "REPEAT_SHARE", 0.2)
    client = TestClient(server.review_application(ReviewSession(queue)), "http://127.0.0.1:8642")
    opened = told(client)
    first = [sha256 for sha256 in opened["order"] if sha256 in queue.pictures][:6]
    send(client, opened, *(said(opened, sha256) for sha256 in first))
    again = told(client)
    (repeated,) = set(again["order"]) & set(first)
    send(client, again, said(again, repeated, "reject"))
    assert kept(queue)[-1].asked_for == "repeat" and not kept(queue)[-1].is_neither_withdrawn_nor_reviewer_test
    assert not set(told(client)["order"]) & {repeated}, "once"
    assert labels.valid_labels_by_sha256(queue.out, "review", POLICY)[repeated].verdict == "accept"


def test_who_takes_the_earlier_label_back_decides_by_the_repeat(queue: ReviewQueue, monkeypatch) -> None:
    monkeypatch.setattr(session, "REPEAT_SHARE", 1.0)
    client = TestClient(server.review_application(ReviewSession(queue)), "http://127.0.0.1:8642")
    opened = told(client)
    decided = next(sha256 for sha256 in opened["order"] if sha256 in queue.pictures)
    send(client, opened, first := said(opened, decided))
    again = told(client)
    assert again["pictures"][decided]["asked"] != opened["pictures"][decided]["asked"], "a repeat"
    send(client, again, said(again, decided, kind="undo", undoes=first["id"]), said(again, decided, "reject"))
    assert labels.valid_labels_by_sha256(queue.out, "review", POLICY)[decided].verdict == "reject"


def test_what_was_put_aside_is_not_shown_again_as_decided(queue: ReviewQueue, monkeypatch) -> None:
    """The answer to it would measure the reviewer, and decide nothing."""
    monkeypatch.setattr(session, "REPEAT_SHARE", 1.0)
    client = TestClient(server.review_application(ReviewSession(queue)), "http://127.0.0.1:8642")
    opened = told(client)
    aside, decided = [sha256 for sha256 in opened["order"] if sha256 in queue.pictures][:2]
    send(client, opened, said(opened, aside, "unsure"), said(opened, decided))
    assert decided in (order := told(client)["order"]) and aside not in order


def test_the_store_that_is_full_says_so_and_nothing_is_saved(
    client: TestClient, queue: ReviewQueue, monkeypatch
) -> None:
    opened = told(client)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "append_label_store_row", full)
        answer = said(opened, next(iter(queue.pictures)))
        body = {"review": opened["review"], "since": 0, "answers": [answer]}
        reply = client.post("/api/save", json=body, headers=ORIGIN)
    assert reply.status_code == 503 and "No space left" in reply.json()["problem"] and not kept(queue)
    assert send(client, opened, answer)["saved"] == [answer["id"]] and len(kept(queue)) == 1


def test_pictures_are_reached_by_content_alone(client: TestClient, queue: ReviewQueue, tmp_path: Path) -> None:
    for picture in (*list(queue.pictures.values())[:1], queue.board[0], queue.known_rejects[0]):
        reply = client.get(f"/picture/{picture.sha256}")
        assert reply.content == picture.path.read_bytes() and reply.headers["content-type"] == "image/png"
        assert "immutable" in reply.headers["cache-control"]
    changed = list(queue.pictures.values())[1]
    changed.path.write_bytes(queue.board[0].path.read_bytes())
    assert client.get(f"/picture/{changed.sha256}").status_code == 404, "it is not what was judged"
    (tmp_path / "secret.png").write_bytes(b"x")
    for name in (
        "../secret.png",
        "..%2fsecret.png",
        "%2e%2e/%2e%2e/etc/passwd",
        str(tmp_path / "secret.png"),
        "0" * 64,
    ):
        assert client.get(f"/picture/{name}").status_code == 404
    assert client.get("/review.html").status_code == client.get("/page/review.js").status_code == 404


def test_formats_that_no_browser_shows_are_sent_as_png(queue: ReviewQueue, tmp_path: Path) -> None:
    from eval.reviewing.pictures import picture_bytes_and_media_type

    for name, media_type in (("a.bmp", "image/png"), ("a.webp", "image/webp"), ("a.jpg", "image/jpeg")):
        Image.new("RGB", (20, 20), "red").save(tmp_path / name)
        found = picture_bytes_and_media_type(
            ReviewPicture(files.sha256_of_file(tmp_path / name), tmp_path / name, name)
        )
        assert found and found[1] == media_type
    drawing = tmp_path / "a.svg"
    drawing.write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>")
    assert picture_bytes_and_media_type(ReviewPicture(files.sha256_of_file(drawing), drawing, "a.svg")) is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"origin": "http://example.org"}, 403),
        ({"origin": "null"}, 403),
        (ORIGIN | {"content-type": "text/plain"}, 403),
        (ORIGIN | {"host": "example.org:8642"}, 421),
        ({"origin": "http://localhost:9", "host": "localhost:8642"}, 403),
        ({"origin": "http://localhost:8642", "host": "localhost:8642"}, 400),
        (ORIGIN, 400),
    ],
)
def test_another_page_reaches_nothing(client: TestClient, headers: dict[str, str], status: int) -> None:
    reply = client.post("/api/save", content=b"{}", headers={"content-type": "application/json"} | headers)
    assert reply.status_code == status
    assert "default-src 'none'" in reply.headers["content-security-policy"] and "unsafe" not in guard.POLICY
    assert client.get("/", headers={"host": "rebound.example"}).status_code == 421


def test_where_others_reach_it_a_token_is_needed(queue: ReviewQueue) -> None:
    assert (
        server.new_token_if_reachable("127.0.0.1")
        == server.new_token_if_reachable("localhost")
        == server.new_token_if_reachable("::1")
        == ""
    )
    token = server.new_token_if_reachable("192.0.2.7")
    app = server.review_application(ReviewSession(queue), "192.0.2.7", token)
    client = TestClient(app, "http://192.0.2.7:8642", follow_redirects=False)
    assert len(token) > 20 and client.get("/").status_code == 401
    assert client.get("/", params={"token": "wrong"}).status_code == 401
    reply = client.get("/", params={"token": token})
    assert reply.status_code == 303 and reply.headers["location"] == "/"
    assert {"HttpOnly", "SameSite=Strict"} <= set(reply.headers["set-cookie"].split("; "))
    assert (
        client.get("/").status_code == 200 and client.get("/", headers={"host": "rebound.example"}).status_code == 421
    )


def test_no_request_brings_a_traceback(
    client: TestClient, queue: ReviewQueue, caplog: pytest.LogCaptureFixture
) -> None:
    """Harmless nonsense of many kinds to every address: an answer in words, never an internal error."""
    rng, opened = random.Random(0), told(client)
    good = {"review": opened["review"], "since": 0, "answers": [said(opened, next(iter(queue.pictures)))]}
    passed = {"who": "anna", "passes": [{"shown": [{"sha256": "0" * 64, "at_ms": 1.0}], "presses_ms": [2.0]}]}
    odd = [None, True, -1, 10**30, 0.5, "", "x" * 600, "\x00", "\ud800", "ä", [], {}, [[]], {"a": {}}, "0" * 64]

    def bent(value: Any) -> Any:
        if rng.random() < 0.2:
            return rng.choice(odd)
        if isinstance(value, dict):
            return {k: bent(v) for k, v in value.items() if rng.random() > 0.05} | (
                {"more": 1} if rng.random() < 0.1 else {}
            )
        return [bent(v) for v in value] if isinstance(value, list) else value

    for _ in range(300):
        content = json.dumps(bent(rng.choice([good, passed]))).encode()
        if rng.random() < 0.2:
            content = bytes(rng.randrange(256) for _ in range(rng.randrange(40)))
        place = rng.choice(["/api/save", "/api/stream", "/api/review", "/", f"/picture/{'0' * 64}"])
        reply = client.post(place, content=content, headers=ORIGIN | {"content-type": "application/json"})
        assert reply.status_code in (200, 400, 404, 405, 409), (place, content)
    for _ in range(200):
        text = "".join(
            chr(rng.choice([rng.randrange(32, 127), rng.randrange(160, 0x2FFF)])) for _ in range(rng.randrange(90))
        )
        assert client.get("/api/review", params={"who": text}).status_code in (200, 400)
        assert client.get("/picture/" + text.replace("?", "").replace("#", "")).status_code in (200, 307, 404)
        assert client.request(rng.choice(["PUT", "DELETE", "PATCH", "OPTIONS"]), "/api/save").status_code == 405
    large = client.post(
        "/api/save", content=b" " * (guard.MOST_BYTES + 1), headers=ORIGIN | {"content-type": "application/json"}
    )
    assert large.status_code == 413 and not [found for found in caplog.records if found.name != "httpx"]
    labels.read_stored_labels(queue.out, "review")


def settled(queue: ReviewQueue, enough: int) -> ReviewQueue:
    """The queue as an audit that ends after so many labels."""
    order = tuple(queue.pictures)
    more = {"purpose": "audit", "known_rejects": [], "checks": {}, "fixed_order": order}
    return dataclasses.replace(queue, **more, has_ended=lambda given, answers: len(given) >= enough)


def test_labels_of_an_audit_are_taken_in_their_order_and_stay(queue: ReviewQueue) -> None:
    audit = settled(queue, 3)
    client = TestClient(server.review_application(ReviewSession(audit)), "http://127.0.0.1:8642")
    opened = told(client)
    first, second, third, fourth = opened["order"][:4]
    assert opened["order"] == told(client, "bob")["order"] == list(queue.pictures)
    assert send(client, opened, said(opened, second))["refused"][0]["why"] == "another picture comes first"
    two = [said(opened, first), said(opened, second, "unsure")]
    assert len(send(client, opened, *two)["saved"]) == 2
    undo = said(opened, second, kind="undo", undoes=two[1]["id"])
    assert "stay" in send(client, opened, undo)["refused"][0]["why"]
    assert "has a label" in send(client, opened, said(opened, second))["refused"][0]["why"]
    assert told(client)["order"][0] == third
    assert send(client, opened, said(opened, third))["ended"]
    assert "enough" in send(client, opened, said(opened, fourth))["refused"][0]["why"]
    assert told(client)["order"] == []
    whole = TestClient(server.review_application(ReviewSession(settled(queue, 99))), "http://127.0.0.1:8642")
    rest = [said(opened, sha256) for sha256 in opened["order"][3:]]
    twice = send(whole, told(whole), *rest, rest[-1] | {"id": str(uuid.uuid4())})
    assert len(twice["saved"]) == 9 and twice["refused"][0]["why"] == "another picture comes first"
    rows = labels.read_stored_labels(queue.out, "audit")[:3]
    assert [(row.sha256, row.asked_for, row.checks) for row in rows] == [
        (s, "audit", []) for s in (first, second, third)
    ]
    assert not kept(queue), "streams never mix"


def test_two_servers_on_one_audit_keep_one_label_of_a_picture(queue: ReviewQueue, monkeypatch) -> None:
    """Also where the other server's label comes between the look and the write."""
    audit = settled(queue, 5)
    one, other = (
        TestClient(server.review_application(ReviewSession(audit)), "http://127.0.0.1:8642") for _ in range(2)
    )
    opened = told(one)
    first, second = opened["order"][:2]
    send(one, opened, said(opened, first, "reject"))
    late = send(other, opened, said(opened, first))
    assert late["refused"][0]["why"] == "the picture has a label by now" and late["changed"][first]
    append, stored = labels.append_labels, []

    def late_append(*given: Any) -> Any:
        if not stored:
            stored.append(1)
            send(one, opened, said(opened, second, "reject"))
        return append(*given)

    monkeypatch.setattr(labels, "append_labels", late_append)
    assert send(other, opened, said(opened, second))["refused"][0]["why"] == "the picture has a label by now"
    assert [row.verdict for row in labels.read_stored_labels(queue.out, "audit")] == ["reject", "reject"]


def test_known_rejects_of_a_stream_are_stored(client: TestClient, queue: ReviewQueue) -> None:
    hidden = queue.known_rejects[0].sha256
    shown = [{"sha256": sha256, "at_ms": 400.0 * n} for n, sha256 in enumerate([*list(queue.pictures)[:5], hidden])]
    body = {"who": "anna", "passes": [{"shown": shown, "presses_ms": [2000 + 470.0]}]}
    for _ in range(2):
        found = client.post("/api/stream", json=body, headers=ORIGIN).json()
    assert (found["known"], found["seen"]) == (1, 1)
    (row,) = kept(queue)
    assert (row.sha256, row.verdict, row.asked_for, row.is_neither_withdrawn_nor_reviewer_test) == (
        hidden,
        "reject",
        "passing",
        False,
    )


def test_a_press_is_given_to_the_picture_before_it() -> None:
    """Two passes in other orders: the pictures that were pressed for stand above all others."""
    rng, wrong = random.Random(1), {"5" * 64, "9" * 64}
    pictures, passes = [f"{n:x}" * 64 for n in range(16)], []
    for _ in range(2):
        order = rng.sample(pictures, len(pictures))
        times = {sha256: 300.0 * n for n, sha256 in enumerate(order)}
        shown = [stream.PictureWithTimeShown(sha256=sha256, at_ms=at) for sha256, at in times.items()]
        passes.append(
            stream.PassTimesAndKeyPresses(shown=shown, presses_ms=[times[s] + rng.gauss(520, 90) for s in wrong])
        )
    found = stream.objection_probabilities_from_key_presses(passes)
    assert set(sorted(pictures, key=lambda s: -found.probability[s])[:2]) == wrong
    assert 0.4 < found.delay_s < 0.6
    assert (
        max(
            stream.objection_probabilities_from_key_presses(
                [stream.PassTimesAndKeyPresses(shown=shown, presses_ms=[])]
            ).probability.values()
        )
        < 0.1
    )


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def served(queue: ReviewQueue) -> Iterator[str]:
    """The address of a server in this process."""
    found = server.listening_socket("127.0.0.1", 0)
    config = uvicorn.Config(server.review_application(ReviewSession(queue)), log_config=None, lifespan="off", ws="none")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [found]}, daemon=True)
    thread.start()
    try:
        yield server.browser_address(found, "")
    finally:
        running.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: the page is not tested")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def visit(browser) -> Iterator[Callable[..., Any]]:
    """visit(address, who) -> a page that has begun; whatever it says of errors fails the test."""
    contexts, problems = [], []

    def begin(address: str, who: str = "anna", context: Any = None) -> Any:
        if context is None:
            context = browser.new_context(viewport={"width": 1100, "height": 700})
            contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(address) else problems.append(r.url))
        page.on("console", lambda m: problems.append(m.text) if "Content Security" in m.text else None)
        page.goto(address)
        page.fill("#who", who)
        page.press("#who", "Enter")
        page.wait_for_selector("#stage img")
        return page

    yield begin
    for context in contexts:
        context.close()
    assert problems == []


def now(page: Any) -> str:
    """The picture on the screen, once it is there: before that no key decides about it."""
    page.wait_for_selector("#stage img")
    return page.eval_on_selector("#stage", "place => place.dataset.now")


def wait_for_text(page: Any, place: str, text: str, timeout_s: float = 20) -> None:
    """Wait until the text stands there. Playwright's own way needs `eval`, which the page's policy forbids."""
    end = time.monotonic() + timeout_s
    while text not in (found := page.inner_text(place)):
        assert time.monotonic() < end, f"{text!r} is not in {found!r}"
        page.wait_for_timeout(20)


def is_saved(page: Any) -> None:
    wait_for_text(page, "#saved-text", "Saved")


def test_keys_decide_and_undo_in_a_browser(visit, queue: ReviewQueue) -> None:
    with served(queue) as address:
        page = visit(address)
        assert page.inner_text("#prompt").startswith("<b>creature"), "text, never markup"
        seen = []
        for keys in ("a", "r3", "rr", "e", "t12", "s", "a"):
            seen.append(now(page))
            for key in keys:
                page.keyboard.press(key)
        is_saved(page)
        rows = {row.sha256: row for row in kept(queue)}
        found = [(rows[s].verdict, rows[s].why) if s in rows else None for s in seen]
        trait = "wrong trait: eyes shows nothing of it, not laser"
        asked = [
            ("accept", ""),
            ("reject", "blurred or noisy"),
            ("reject", ""),
            ("unsure", "retouch"),
            ("reject", trait),
        ]
        assert found == [*asked, None, ("accept", "")]
        assert rows[seen[4]].shown_traits == {"eyes": "nothing of it"} and rows[seen[1]].reason == "blurred or noisy"
        assert all(0 <= (row.seconds or 0) < 60 for row in rows.values())
        for back in reversed(seen):
            page.keyboard.press("z")
            assert now(page) == back
        is_saved(page)
        assert all(row.withdrawn for row in kept(queue)) and len(kept(queue)) == 6
        page.keyboard.press("z")
        assert page.inner_text("#told") == "There is nothing to undo"
        page.keyboard.down(" ")
        assert page.is_visible("#board") and page.locator("#references img").count() == 2
        page.keyboard.up(" ")
        assert not page.is_visible("#board")
        page.keyboard.press("f")
        assert page.eval_on_selector("#stage img", "image => image.clientWidth") == 32
        page.keyboard.press("f")
        width = page.eval_on_selector("#stage img", "image => image.clientWidth")
        assert width > 300 and width % 32 == 0, "pixels by whole numbers"
        page.keyboard.press("?")
        assert page.is_visible("#help")
        page.keyboard.press("Escape")
        page.keyboard.press("a")
        is_saved(page)
        assert sum(not row.withdrawn for row in kept(queue)) == 1


def test_buttons_say_what_they_are_and_a_double_click_decides_once(visit, queue: ReviewQueue) -> None:
    with served(queue) as address:
        page = visit(address)
        first = now(page)
        page.dblclick("#one [data-do=accept]")
        is_saved(page)
        assert [row.sha256 for row in kept(queue)] == [first]
        unnamed = page.evaluate(
            "[...document.querySelectorAll('button, input, img, [role=dialog], dialog')].filter(e => !(e.getAttribute("
            "'aria-label') || e.getAttribute('aria-labelledby') || e.textContent.trim() || e.labels?.length || e.alt))"
            ".map(e => e.outerHTML)"
        )
        assert unnamed == []
        now(page)
        page.keyboard.press("Tab")
        page.focus("#one [data-do=reject]")
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        is_saved(page)
        assert kept(queue)[-1].reason == "wrong shape or anatomy"
        wait_for_text(page, "#live", "Rejected: wrong shape or anatomy. Picture 3 of 13")
        queue.checks[now(page)] = ["margin", "style"]
        page.keyboard.press("a")
        is_saved(page)
        wait_for_text(page, "#problem", "An answer was not taken: the picture is in review for other reasons")
        assert page.is_visible("#problem"), "it stays when all else is saved"
        page.click(".round")
        page.uncheck("#shortcuts")
        page.keyboard.press("Escape")
        page.keyboard.press("a")
        assert len(kept(queue)) == 2, "single letters are off"


def test_two_tabs_and_two_reviewers_decide_each_picture_once(visit, queue: ReviewQueue) -> None:
    with served(queue) as address:
        anna = visit(address)
        again, bob = visit(address, context=anna.context), visit(address, "bob")
        for _ in range(4):
            for page in (anna, again, bob):
                page.keyboard.press("a")
                is_saved(page)
        for page in (anna, again, bob):
            while not page.is_visible("#end"):
                page.keyboard.press("a")
                is_saved(page)
        rows = kept(queue)
        assert {row.sha256 for row in rows if row.is_neither_withdrawn_nor_reviewer_test} == set(queue.pictures)
        assert len({row.id for row in rows}) == len(rows) and ReviewSession(queue).verdict_counts()["open"] == 0
        assert page.inner_text("#next") == "stylegate gate batch=a"


def test_answers_wait_in_the_browser_while_the_server_is_away(visit, queue: ReviewQueue) -> None:
    with served(queue) as address:
        page = visit(address)
        page.context.set_offline(True)
        for number in range(3):
            now(page)
            page.keyboard.press("a")
            wait_for_text(page, "#saved-text", f"{number + 1} not saved yet")
        page.keyboard.press("z")
        assert not kept(queue)
        page.context.set_offline(False)
        is_saved(page)
        assert [row.withdrawn for row in kept(queue)] == [False, False, True]
        page.context.set_offline(True)
        page.keyboard.press("r")
        page.keyboard.press("1")
        page.on("dialog", lambda dialog: dialog.accept())
        page.close(run_before_unload=True)
        page.context.set_offline(False)
        page = visit(address, context=page.context)
        is_saved(page)
        assert kept(queue)[-1].reason == "off the style", "a page that was closed left its answer to the next one"
        now(page)
        page.context.set_offline(True)
        for _ in range(8):
            page.keyboard.press("a")
        page.wait_for_selector("#stage .gone")  # no picture that was decoded ahead is left
        waiting = page.inner_text("#saved-text")
        page.keyboard.press("a")
        assert page.inner_text("#told").startswith("Not shown yet") and page.inner_text("#saved-text") == waiting
        page.keyboard.press("g")
        wait_for_text(page, "#sweep", "Accept all 0")
        page.keyboard.press("a")
        assert "No picture is shown" in page.inner_text("#told") and page.inner_text("#saved-text") == waiting
        page.keyboard.press("g")
        assert "The server cannot be reached" in page.inner_text("#problem") and page.is_visible("#problem")
        page.context.set_offline(False)
        page.wait_for_selector("#stage img")
        is_saved(page)
        assert not page.is_visible("#problem")
        page.click("#me")
        page.wait_for_selector("#who", state="visible")


def test_grid_marks_rejects_and_accepts_the_rest(visit, queue: ReviewQueue) -> None:
    with served(queue) as address:
        page = visit(address)
        page.keyboard.press("g")
        cells = page.locator("#cells button")
        cells.nth(1).wait_for()
        wait_for_text(page, "#sweep", f"Accept all {cells.count()}")
        shown = [cells.nth(n).get_attribute("data-sha256") for n in range(cells.count())]
        page.keyboard.press("ArrowRight")
        page.keyboard.press("4")
        cells.nth(3).click()
        assert page.inner_text("#sweep") == f"Accept {len(shown) - 2}, reject 2"
        page.keyboard.press("a")
        is_saved(page)
        rows = {row.sha256: row for row in kept(queue)}
        assert set(rows) == set(shown) and [rows[s].verdict for s in shown[:4]] == [
            "accept",
            "reject",
            "accept",
            "reject",
        ]
        assert rows[shown[1]].reason == "artefacts"
        page.keyboard.press("z")
        is_saved(page)
        assert all(row.withdrawn for row in kept(queue))


def test_stream_sorts_and_decides_nothing(visit, queue: ReviewQueue) -> None:
    with served(queue) as address:
        page = visit(address)
        page.click("[data-mode=stream]")
        page.eval_on_selector("#speed", "speed => { speed.value = 250; }")
        page.keyboard.press("Enter")
        page.wait_for_selector("#flow img")
        wrong = page.eval_on_selector("#flow", "place => place.dataset.now")
        page.wait_for_timeout(450)
        page.keyboard.press(" ")
        page.wait_for_selector("#stream-decide", state="visible", timeout=20000)
        assert all(row.asked_for == "passing" for row in kept(queue))
        page.keyboard.press("d")
        page.wait_for_selector("#cells button")
        first = page.locator("#cells button").first
        if wrong in queue.pictures:
            near = [page.locator("#cells button").nth(n).get_attribute("data-sha256") for n in range(3)]
            assert wrong in near and first.get_attribute("aria-pressed") == "true"
        page.keyboard.press("a")
        is_saved(page)
        assert kept(queue)


def start(words: list[str], port: int) -> "subprocess.Popen[str]":
    """The command as a process of its own, once it says where its page is."""
    told_to = command("review", *words, f"port={port}", "open=false")
    found = subprocess.Popen(told_to, cwd=files.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert found.stdout
    line = ""
    while "http://" not in line:
        line = found.stdout.readline()
        assert line, found.wait()
    return found


def test_a_killed_server_loses_nothing_that_was_acknowledged(visit, words, run, tmp_path: Path) -> None:
    """From gate to page to SIGKILL to another server and back to the gate, as a person would."""
    told_to, out, port = words(ALL_IN_REVIEW), tmp_path / "out", free_port()
    code, text = run("gate", *told_to)
    assert code == 11 and "stylegate review with the same arguments" in text
    first = start(told_to, port)
    page = visit(f"http://127.0.0.1:{port}/")
    for number in range(9):
        now(page)
        page.keyboard.press("a")
        if number == 6:
            page.wait_for_timeout(500)  # the next pictures are decoded
            first.send_signal(signal.SIGKILL)
    first.wait()
    page.wait_for_selector("#saved.offline")
    unsaved = int(page.inner_text("#saved-text").split()[0])
    assert len(labels.read_stored_labels(out, "review")) >= 9 - unsaved
    second = start(told_to, port)
    is_saved(page)
    assert len({row.sha256 for row in labels.read_stored_labels(out, "review")}) == 9
    page.keyboard.press("g")
    while not page.is_visible("#end"):
        page.keyboard.press("a")
        is_saved(page)
    gate = re.split(r" (?=\w+=)", page.inner_text("#next").removeprefix("stylegate gate "))
    second.send_signal(signal.SIGINT)
    last = second.communicate(timeout=20)[0]
    assert second.returncode == 0 and "32 decided (32 accept, 0 reject)" in last and "0 left" in last
    assert last.strip().splitlines()[-1].startswith("Next: stylegate gate ")
    assert run("gate", *gate)[0] == 0
    assert {row["settled"]["who"] for row in verdicts_of(out).values()} == {"anna"}


def test_an_audit_in_a_browser_ends_with_the_proof(visit, words, run, tmp_path: Path) -> None:
    """Each label is confirmed before the next picture is shown; a key that was wrong is taken back. Known rejects are
    hidden among the pictures, and measure who reviews.
    """
    told_to, port = [*words(ALL_PASS), "promise.known_rejects=30"], free_port()
    assert run("certify", *told_to)[0] == 13
    known = read_audit_terms(tmp_path / "out")[0].known_rejects
    running = start([*told_to, "queue=audit"], port)
    page = visit(f"http://127.0.0.1:{port}/")
    assert not page.is_visible(".modes") and not page.is_visible("[data-do=skip]")
    first = now(page)
    page.keyboard.press("r")
    page.keyboard.press("2")
    page.keyboard.press("z")
    assert now(page) == first and page.inner_text("#told") == "Not kept"
    for _ in range(70):
        for key in ("r", "r") if now(page) in known else ("a",):
            page.keyboard.press(key)
        page.keyboard.press("Enter")
        is_saved(page)
        if page.is_visible("#end"):
            break
    assert page.inner_text("#end-title") == "The labels prove the promise"
    assert page.inner_text("#next").startswith("stylegate certify ")
    running.send_signal(signal.SIGINT)
    assert "that is enough" in running.communicate(timeout=20)[0] and running.returncode == 0
    code, text = run("certify", *told_to)
    assert code == 0 and "certify: proven" in text and "anna did not see 0 of 30 known rejects" in text, text
    rows = labels.read_stored_labels(tmp_path / "out", "audit")
    assert {(row.verdict, row.asked_for) for row in rows} == {("accept", "audit"), ("reject", "known")}


def test_a_calibration_of_nothing_is_refused_and_leaves_no_terms(run, words, tmp_path: Path) -> None:
    code, text = run(
        "review", *words(CALIBRATED.replace("reject_below: 1}", "reject_below: 200}")), "queue=calibration"
    )
    assert code == 2 and "nothing to calibrate on" in text, text
    assert not (tmp_path / "out" / "labels.sqlite").exists()


def test_a_calibration_asks_about_its_sample(words, tmp_path: Path) -> None:
    told_to = [quote_text_value(word) for word in (*words(CALIBRATED), "promise.num_labels=5", "queue=calibration")]
    config = checked_config(compose_hydra_config(valid_overrides_and_problems("review", told_to, False)[0]), [])
    with locked_lot(config) as lot:
        queue = begin_calibration_queue(config, lot)
    session = ReviewSession(queue)
    opened = session.initial_page_data("anna")
    assert len(opened["order"]) == 5 and opened["purpose"] == "calibrate" and queue.under
    answers = [said(opened, sha256) for sha256 in opened["order"]]
    body = {"review": opened["review"], "since": 0, "answers": answers}
    assert session.save_answers(SaveRequest.model_validate(body))["ended"]
    rows = labels.read_stored_labels(tmp_path / "out", "calibrate")
    assert [row.under for row in rows] == [queue.under] * 5
    assert queue.next_words.startswith("stylegate calibrate ") and queue.next_words.endswith("promise.num_labels=5")

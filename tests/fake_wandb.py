"""A W&B server on the loopback that answers as far as wandb 0.31 asks in a run, or fails as told.

    with FakeWandb() as server: server.fail("log", "hang")

It keeps what a run sends: history by step, summary, files, alerts, artifacts and who used them. It is made of what the
client was seen to ask; the real service was never spoken to.
"""

import gzip
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

KEY = "f" * 7 + "a1b2c3d4" + "0" * 25  # 40 characters, as a real one has
STAGES = ("init", "log", "finish")
SLOW_S = 0.5


class Run:
    """What the server knows of one run."""

    def __init__(self) -> None:
        self.history: dict[int, dict] = {}
        self.lines = 0
        self.summary, self.config = "{}", "{}"
        self.complete = False
        self.files: dict[str, bytes] = {}
        self.steps: list[int] = []  # in the order in which they came
        self.made: list[str] = []
        self.used: list[str] = []  # ids


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that is killed says nothing."""


class FakeWandb:
    """Stages: init, log (values on the way), finish (the last ones). Faults: hang, slow, cut, error."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.alerts: list[tuple[str, str]] = []
        self.artifacts: dict[str, dict[str, Any]] = {}  # by id
        self.views: list[dict[str, Any]] = []
        self.faults: dict[str, str] = {}
        self.requests: list[str] = []
        self.stopped = threading.Event()
        self.server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"fake": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "FakeWandb":
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()

    def fail(self, stage: str, fault: str) -> None:
        """From now on; `stage` and those after it."""
        assert stage in STAGES and fault in ("hang", "slow", "cut", "error")
        self.faults |= dict.fromkeys(STAGES[STAGES.index(stage) :], fault)

    def run(self, name: str) -> Run:
        return self.runs.setdefault(name, Run())

    def graphql(self, operation: str, given: dict[str, Any]) -> Any:
        """The answer to a question that the client is known to ask; None for any other."""
        here = {"id": "p", "name": given.get("project") or "tests", "entity": {"id": "e", "name": "team"}}
        match operation:
            case "RunResumeStatus":
                run = self.runs.get(given["name"])
                return {"model": here | {"bucket": self.resumed(given["name"], run) if run else None}}
            case "UpsertBucket":
                name = given["name"] or given["id"].removeprefix("run-")
                new, run = name not in self.runs, self.run(name)
                run.config = given.get("config") or run.config
                bucket = {"id": f"run-{name}", "name": name, "displayName": name, "description": None}
                bucket |= {"config": run.config, "sweepName": None, "project": here, "historyLineCount": run.lines}
                return {"upsertBucket": {"bucket": bucket, "inserted": new}}
            case "Viewer":
                return {
                    "viewer": {"id": "v", "entity": "team", "username": "me", "flags": "{}", "teams": {"edges": []}}
                }
            case "GetDefaultEntity":
                return {"viewer": {"id": "v", "entity": "team"}}
            case "ServerFeaturesQuery":
                return {"serverInfo": {"features": []}}
            case "CreateRunFiles":
                places = [{"name": n, "uploadUrl": f"{self.url}/kept/{given['run']}/{n}"} for n in given["files"]]
                return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": places}}
            case "NotifyScriptableRunAlert":
                self.alerts.append((given["title"], given["text"]))
                return {"notifyScriptableRunAlert": {"success": True}}
            case "UpsertView2":
                self.views.append(given)
                view = {"id": "VmlldzoxMjM=", "type": "project-view", "name": given["name"], "spec": given["spec"]}
                return {"upsertView": {"view": view | {"project": here}, "inserted": True}}
            case "CreateArtifact":
                return {"createArtifact": {"artifact": self.create(given["input"])}}
            case "CreateArtifactManifest" | "UpdateArtifactManifest":
                file = {"id": "f", "name": "manifest", "uploadUrl": f"{self.url}/kept/manifests/m", "uploadHeaders": []}
                return {operation[0].lower() + operation[1:]: {"artifactManifest": {"id": "m", "file": file}}}
            case "CreateArtifactFiles":
                return {"createArtifactFiles": {"files": {"edges": [{"node": self.place(f)} for f in files_of(given)]}}}
            case "CommitArtifact":
                self.artifacts[given["artifactID"]]["state"] = "COMMITTED"
                return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "d"}}}
            case "UseArtifact":
                told = given.get("input", given)
                self.run(told["runName"]).used.append(told["artifactID"])
                return {"useArtifact": {"artifact": {"id": told["artifactID"]}}}
            case "Run":
                state = {"projectId": "1", "state": "finished", "name": given["name"], "id": "r"}
                return {"project": {"run": state if given["name"] in self.runs else None}}
            case "RunInputArtifacts":
                nodes = [{"node": self.artifacts[i]} for i in self.run(given["run"]).used]
                page = {"totalCount": len(nodes), "pageInfo": {"endCursor": None, "hasNextPage": False}}
                return {"project": {"run": {"artifacts": page | {"edges": nodes}}}}
            case "ArtifactByID":
                return {"artifact": self.artifacts[given["id"]]}
            case "ArtifactMembershipByName":
                name, wanted = given["name"].split(":")
                found = [i for i, a in self.artifacts.items() if self.title(i) == name and wanted in aliases_of(a)]
                return {"project": {"artifactCollectionMembership": self.member(found[-1]) if found else None}}
        return None

    def resumed(self, name: str, run: Run) -> dict[str, Any]:
        tail = [json.dumps(run.history[max(run.history)])] if run.history else []
        found = {"id": f"run-{name}", "name": name, "summaryMetrics": run.summary, "displayName": name}
        found |= {"logLineCount": 0, "historyLineCount": run.lines, "eventsLineCount": 0, "eventsTail": "[]"}
        return found | {
            "historyTail": json.dumps(tail),
            "config": run.config,
            "tags": [],
            "notes": None,
            "wandbConfig": '{"t": 1}',
        }

    def create(self, given: dict[str, Any]) -> dict[str, Any]:
        """As the service does it: the same content under the same name is the same version."""
        name, told = given["artifactCollectionName"], given["aliases"] or []
        same = [a for i, a in self.artifacts.items() if self.title(i) == name and a["digest"] == given["digest"]]
        project = {"id": "p", "internalId": "1", "name": given["projectName"], "entity": {"id": "e", "name": "team"}}
        sequence = {"__typename": "ArtifactSequence", "id": f"s-{name}", "name": name, "project": project}
        new: dict[str, Any] = {"id": f"artifact-{len(self.artifacts)}", "state": "PENDING", "digest": given["digest"]}
        new |= {"artifactSequence": sequence | {"latestArtifact": None}, "versionIndex": len(self.artifacts)}
        new |= {"artifactType": {"name": given["artifactTypeName"]}, "metadata": given.get("metadata"), "aliases": []}
        new |= dict.fromkeys(("description", "historyStep", "commitHash", "updatedAt"))
        new |= {"ttlDurationSeconds": -2, "ttlIsInherited": True, "tags": [], "size": 1, "fileCount": 1}
        new["createdAt"] = "2026-01-01T00:00:00Z"
        found = same[0] if same else new
        found["aliases"] += [{"id": "a", "alias": t["alias"], "artifactCollection": sequence} for t in told]
        self.run(given["runName"]).made.append(name)
        return self.artifacts.setdefault(found["id"], found)

    def title(self, artifact: str) -> str:
        return self.artifacts[artifact]["artifactSequence"]["name"]

    def place(self, file: dict[str, Any]) -> dict[str, Any]:
        url = f"{self.url}/kept/{self.title(file['artifactID'])}/{file['name']}"
        found = {"id": "f", "name": file["name"], "displayName": file["name"], "uploadUrl": url, "uploadHeaders": []}
        return found | {"uploadMultipartUrls": None, "storagePath": "s", "artifact": {"id": file["artifactID"]}}

    def member(self, artifact: str) -> dict[str, Any]:
        found = self.artifacts[artifact]
        part = {"id": "m", "versionIndex": found["versionIndex"], "createdAt": found["createdAt"], "artifact": found}
        return part | {"aliases": found["aliases"], "artifactCollection": found["artifactSequence"]}

    def stream(self, name: str, sent: dict[str, Any]) -> None:
        """History, summary and the end of a run, as its file stream brings them."""
        run = self.run(name)
        for file, part in sent.get("files", {}).items():
            if file == "wandb-history.jsonl":
                run.lines = part["offset"] + len(part["content"])
                for row in map(json.loads, part["content"]):
                    run.steps.append(row["_step"])
                    run.history[row["_step"]] = row
            elif file == "wandb-summary.json":
                run.summary = part["content"][-1]
        run.complete |= bool(sent.get("complete"))


def files_of(given: dict[str, Any]) -> list[dict[str, Any]]:
    return given["input"]["artifactFiles"]


def aliases_of(artifact: dict[str, Any]) -> list[str]:
    return [found["alias"] for found in artifact["aliases"]]


class Handler(BaseHTTPRequestHandler):
    fake: FakeWandb
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        sent = json.loads(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
        stage = "init" if self.path == "/graphql" else "finish" if sent.get("complete") else "log"
        if stage == "init" and self.fake.runs and "init" not in self.fake.faults:
            stage = "log"  # questions on the way
        if not self.obey(self.fake.faults.get(stage)):
            return
        if self.path == "/graphql":
            operation = re.findall(r"(?:query|mutation)\s+(\w+)", sent["query"])[0]
            self.fake.requests.append(operation)
            data = self.fake.graphql(operation, sent.get("variables") or {})
            self.answer({"data": data} if data else {"errors": [{"message": f"{operation} is not known"}]})
        else:
            self.fake.stream(self.path.split("/")[-2], sent)
            self.answer({"exitcode": None, "limits": {}})

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.obey(self.fake.faults.get("log")):
            _, _, run, name = self.path.split("/", 3)
            self.fake.run(run).files[name] = body
            self.answer({})

    def obey(self, fault: str | None) -> bool:
        """Whether to answer at all, and properly."""
        if fault == "slow":
            self.fake.stopped.wait(SLOW_S)
        elif fault == "error":
            self.answer({"errors": [{"message": "the server is ill"}]}, 500)
        elif fault == "hang":
            self.fake.stopped.wait()
        if fault in ("hang", "cut"):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        return fault in (None, "slow")

    def answer(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def speaking_to(url: str) -> Iterator[None]:
    """W&B's client at this server, with a key of no account."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_BASE_URL", url)
        patch.setenv("WANDB_API_KEY", KEY)
        patch.delenv("WANDB_MODE", raising=False)
        yield


def refusing() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"

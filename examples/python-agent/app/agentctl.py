"""The agent protocol in Python's standard library: docs/protocol.md, without a session.

    import agentctl

    def work(task):
        return {"words": len(task.input["text"].split())}

    agentctl.serve(work)

A lease lives for 30 s after its last beat; a thread beats for each task. What the gateway cannot answer now (it is away, or busy) is
asked again; what it refuses is an error.
"""
import http.client
import json
import os
import signal
import sys
import threading
import time
import urllib.parse

BEAT_S = 5
STOP_S = 8
CHUNK = 65536


class TaskError(Exception):
    """The task's failure. `after_ms`: with `retryable`, not before so long."""

    def __init__(self, code, message, retryable=False, after_ms=None):
        super().__init__(message)
        self.error = {"code": code, "message": message, "retryable": retryable}
        if after_ms is not None:
            self.error["after_ms"] = after_ms


class Refused(Exception):
    """The gateway said no, and would say so again."""

    def __init__(self, status, code, message):
        super().__init__(f"{code}: {message}")
        self.status, self.code = status, code


class Gateway:
    def __init__(self):
        url = urllib.parse.urlsplit(os.environ["AGENTCTL_GATEWAY"])
        self.address = (url.hostname, url.port or 80)
        with open(os.environ.get("AGENTCTL_TOKEN_FILE", "/run/secrets/agentctl-token")) as file:
            self.token = file.read().strip()

    def call(self, method, path, body=None, timeout=20):
        """The answer as JSON, asked for until there is one that counts."""
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        return json.loads(self.send(method, path, lambda: data, "application/json", timeout, lambda answer: answer.read()))

    def send(self, method, path, body, content_type, timeout, read):
        pause = 0.1
        while True:
            content = body()
            connection = http.client.HTTPConnection(*self.address, timeout=timeout)
            try:
                headers = {"authorization": f"Bearer {self.token}", "content-type": content_type}
                connection.request(method, path, body=content, headers=headers)
                answer = connection.getresponse()
                if answer.status in (200, 201):
                    return read(answer)
                said = answer.read()
                if answer.status < 500 and answer.status != 429:
                    error = json.loads(said).get("error", {})
                    raise Refused(answer.status, error.get("code", "refused"), error.get("message", ""))
            except (OSError, http.client.HTTPException):
                pass  # It is away; it comes back.
            finally:
                connection.close()
                if hasattr(content, "close"):
                    content.close()
            time.sleep(pause)
            pause = min(1, pause * 2)


class Task:
    """One execution of a task: what `work` is called with."""

    def __init__(self, gateway, leased):
        self.gateway = gateway
        self.lease, self.input, self.id = leased["lease"], leased["input"], leased["id"]
        self.attempt, self.type = leased["attempt"], leased["type"]
        # Set when the work is to stop: cancelled, lost, or the agent ends.
        self.stop = threading.Event()
        self._recorded = None if leased.get("journal", 0) > 0 else {}
        self._counts = {}

    def progress(self, message, percent=None, **more):
        body = {"lease": self.lease, "message": message, **more}
        if percent is not None:
            body["percent"] = percent
        self.gateway.call("POST", "/v1/progress", body)

    def check(self):
        """Between two pieces of work: ends it when it is to stop."""
        if self.stop.is_set():
            raise TaskError("cancelled", "the task was stopped")

    def delegate(self, children):
        """Many at once: [{key, agent, input}] → their ids. The same key is the same child, also in a later execution."""
        return self.gateway.call("POST", "/v1/delegate", {"lease": self.lease, "tasks": children})["tasks"]

    def wait_for(self, ids):
        """Their results, in order; the first failure is this task's. While it waits, this task holds no slot."""
        ended, open_ids = {}, list(ids)
        while open_ids:
            self.check()
            reply = self.gateway.call("POST", "/v1/await", {"lease": self.lease, "tasks": open_ids, "wait_ms": 10000})
            ended.update((view["id"], view) for view in reply["tasks"] if view["status"] not in ("queued", "running"))
            open_ids = [id for id in open_ids if id not in ended]
        for view in (ended[id] for id in ids):
            if view["status"] != "completed":
                raise TaskError("child_failed", f"the child {view['id']}: {(view['error'] or {}).get('message', view['status'])}")
        return [ended[id]["result"] for id in ids]

    def put(self, name, path, content_type="application/octet-stream"):
        """A file as an artifact of this task; its view, with the digest."""
        target = f"/v1/artifacts/{urllib.parse.quote(name, safe='')}?lease={urllib.parse.quote(self.lease)}"
        return json.loads(self.gateway.send("PUT", target, lambda: open(path, "rb"), content_type, 60, lambda answer: answer.read()))

    def get(self, digest, path):
        """An artifact of this task, of its children, or named in its input, into a file."""

        def save(answer):
            with open(path, "wb") as file:
                for chunk in iter(lambda: answer.read(CHUNK), b""):
                    try:
                        file.write(chunk)
                    except OSError as error:  # The disk's, not the gateway's.
                        raise TaskError("io_error", str(error)) from error

        target = f"/v1/artifacts/{urllib.parse.quote(digest)}?lease={urllib.parse.quote(self.lease)}"
        self.gateway.send("GET", target, lambda: None, "application/octet-stream", 60, save)

    def step(self, name, work):
        """`work()`, recorded: a later execution of this task gets the record and does not run it. The same steps in the same order, please."""
        if self._recorded is None:
            entries = self.gateway.call("GET", f"/v1/journal?lease={urllib.parse.quote(self.lease)}")["entries"]
            self._recorded = {entry["key"]: entry["value"] for entry in entries}
        self._counts[name] = self._counts.get(name, 0) + 1
        key = f"{name}#{self._counts[name]}"
        if key not in self._recorded:
            self._recorded[key] = work()
            entry = {"key": key, "kind": "step", "value": self._recorded[key]}
            self.gateway.call("POST", "/v1/journal", {"lease": self.lease, "entries": [entry]})
        return self._recorded[key]


class Agent:
    def __init__(self, work):
        self.work, self.gateway = work, Gateway()
        self.stopping = threading.Event()
        self.lock, self.tasks = threading.Lock(), set()

    def loop(self):
        while not self.stopping.is_set():
            reply = self.gateway.call("POST", "/v1/lease", {"want": 1, "wait_ms": 10000})
            open(os.environ.get("AGENTCTL_READY_FILE", "/tmp/.agentctl-ready"), "w").close()
            for leased in reply["tasks"]:
                self.run(Task(self.gateway, leased))

    def run(self, task):
        with self.lock:
            self.tasks.add(task)
            if self.stopping.is_set():
                task.stop.set()
        ended = threading.Event()
        threading.Thread(target=self.beat, args=(task, ended), daemon=True).start()
        try:
            self.settle(task, self.outcome(task))
        finally:
            ended.set()
            with self.lock:
                self.tasks.discard(task)

    def outcome(self, task):
        try:
            return {"result": self.work(task)}
        except TaskError as error:
            if self.stopping.is_set():
                return {"error": {"code": "agent_stopped", "message": "the agent was stopped", "retryable": True}}
            return {"error": error.error}
        except Exception as error:  # Whatever it is, the task must end.
            return {"error": {"code": "error", "message": f"{type(error).__name__}: {error}"[:4000], "retryable": False}}

    def settle(self, task, outcome):
        try:
            self.gateway.call("POST", "/v1/complete" if "result" in outcome else "/v1/fail", {"lease": task.lease, **outcome})
        except Refused as refused:
            # 409: the lease is dead, somebody else does the task. A result that is not taken must fail instead.
            if refused.status != 409 and "result" in outcome:
                self.settle(task, {"error": {"code": refused.code, "message": str(refused), "retryable": False}})

    def beat(self, task, ended):
        while not ended.wait(BEAT_S):
            try:
                if task.lease in self.gateway.call("POST", "/v1/heartbeat", {"lease": task.lease})["cancel"]:
                    task.stop.set()
            except Refused:
                return task.stop.set()

    def stop(self, *_):
        self.stopping.set()
        with self.lock:
            for task in self.tasks:
                task.stop.set()


def serve(work):
    """Leases tasks and calls `work(task)` for each, AGENTCTL_CONCURRENCY at a time, until SIGTERM."""
    agent = Agent(work)
    stopped = threading.Event()

    def stop(*_):
        # Not here: a signal's handler may interrupt who holds the lock.
        stopped.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    for _ in range(int(os.environ.get("AGENTCTL_CONCURRENCY", "1"))):
        threading.Thread(target=agent.loop, daemon=True).start()
    stopped.wait()
    agent.stop()
    until = time.monotonic() + STOP_S
    while agent.tasks and time.monotonic() < until:
        time.sleep(0.02)
    sys.stdout.flush()
    os._exit(0)

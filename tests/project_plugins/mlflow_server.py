"""A loopback server with the part of MLflow's REST API 2.0 that a mirror needs, in memory.

Its answers have the shape of those of MLflow 3.17's own server.
"""

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self


class RefusedError(Exception):
    """The request is answered with status 400."""


class MlflowServer:
    """Keeps experiments and runs; ``refuse`` names an endpoint that fails from now on."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: list[dict[str, Any]] = []
        self.calls: list[tuple[str, str]] = []
        self.refuse = ""
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Do what one endpoint does."""
        if path == self.refuse:
            raise RefusedError(path)
        if path == "experiments/search":
            name = re.fullmatch(r"name = '(.*)'", body["filter"])
            found = self.experiments.get(name[1]) if name else None
            return {"experiments": [{"experiment_id": found}]} if found else {}
        if path == "experiments/create":
            if body["name"] in self.experiments:
                raise RefusedError("RESOURCE_ALREADY_EXISTS")
            self.experiments[body["name"]] = str(len(self.experiments) + 1)
            return {"experiment_id": self.experiments[body["name"]]}
        if path == "runs/search":
            return self._search(body)
        if path == "runs/create":
            return {"run": self._create(body)}
        run = next(item for item in self.runs if item["info"]["run_id"] == body["run_id"])
        if path == "runs/log-batch":
            self._log(run["data"], body)
            return {}
        if path == "runs/update":
            run["info"] |= {"status": body["status"], "end_time": body["end_time"]}
            return {"run_info": run["info"]}
        raise RefusedError(f"no endpoint {path}")

    def _search(self, body: dict[str, Any]) -> dict[str, Any]:
        wanted = re.fullmatch(r"tags\.(\w+) LIKE '(.*)%'", body["filter"])
        if wanted is None:
            raise RefusedError("filter")
        start = int(body["page_token"] or 0)
        found = [
            run
            for run in self.runs
            if run["info"]["experiment_id"] in body["experiment_ids"]
            and self.tags(run).get(wanted[1], "").startswith(wanted[2])
        ]
        more = {"next_page_token": str(start + 2)} if found[start + 2 :] else {}
        return {"runs": found[start : start + 2], **more}

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        info = {
            "run_id": f"run{len(self.runs)}",
            "experiment_id": body["experiment_id"],
            "status": "RUNNING",
            "start_time": body["start_time"],
        }
        run = {"info": info, "data": {"tags": body["tags"], "metrics": [], "params": []}}
        self.runs.append(run)
        return run

    @staticmethod
    def _log(data: dict[str, Any], body: dict[str, Any]) -> None:
        if len(body["metrics"]) > 1000:
            raise RefusedError("too many metrics")
        for item in body["metrics"]:
            if not re.fullmatch(r"[\w. :/-]+", item["key"]) or not isinstance(item["step"], int):
                raise RefusedError(f"metric {item}")
        for kind in ("metrics", "params", "tags"):
            fresh = [item for item in body[kind] if item not in data[kind]]
            data[kind] = [*data[kind], *fresh]

    @staticmethod
    def tags(run: dict[str, Any]) -> dict[str, str]:
        """Return a run's tags as a table."""
        return {tag["key"]: tag["value"] for tag in run["data"]["tags"]}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                path = self.path.removeprefix("/api/2.0/mlflow/")
                server.calls.append((path, self.headers.get("Authorization", "")))
                try:
                    status, answer = 200, server.answer(path, body)
                except RefusedError as error:
                    status, answer = 400, {"error_code": "BAD_REQUEST", "message": str(error)}
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                return

        return Handler

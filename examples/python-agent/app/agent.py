"""Counts words.

{"text": "…"}                 → {"words": N}
{"text": "…", "seconds": N}     the same, slowly: with progress, and it can be cancelled
{"texts": ["…", …]}           → {"words": N, "report": "sha256:…"}   one child per text, and a report as an artifact
{"report": "sha256:…"}        → {"lines": N}                         of such a report
"""
import json
import os
import tempfile
import time

import agentctl


def count(task):
    seconds = task.input.get("seconds", 0)
    for second in range(seconds):
        task.progress(f"{second} of {seconds} s", percent=100 * second // seconds)
        if task.stop.wait(1):
            task.check()
    return {"words": len(task.input["text"].split())}


def count_many(task, folder):
    agent = os.environ["AGENTCTL_AGENT"]
    children = [{"key": f"text-{n}", "agent": agent, "input": {"text": text}} for n, text in enumerate(task.input["texts"])]
    counts = [result["words"] for result in task.wait_for(task.delegate(children))]
    # Recorded: should this agent die now, the next execution has the same time in its report.
    made_at = task.step("time", lambda: int(time.time()))
    path = os.path.join(folder, "report")
    with open(path, "w") as file:
        file.writelines(f"{json.dumps({'words': words, 'at': made_at})}\n" for words in counts)
    return {"words": sum(counts), "report": task.put("counts.jsonl", path, "application/jsonl")["digest"]}


def lines_of(task, folder):
    path = os.path.join(folder, "report")
    task.get(task.input["report"], path)
    with open(path) as file:
        return {"lines": sum(1 for _ in file)}


def work(task):
    kinds = task.input if isinstance(task.input, dict) else {}
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(kinds.get("text"), str):
            return count(task)
        if isinstance(kinds.get("texts"), list):
            return count_many(task, folder)
        if isinstance(kinds.get("report"), str):
            return lines_of(task, folder)
    raise agentctl.TaskError("bad_input", 'expected {"text": "some words"}')


agentctl.serve(work)

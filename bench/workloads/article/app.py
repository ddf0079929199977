"""The article's web process: put the request into the queue, answer at once."""
from flask import Flask, request

from tasks import noop

app = Flask(__name__)


@app.post("/submit-job")
def submit_job():
    task = noop.delay(request.get_json())
    return {"id": task.id, "state": "queued"}, 202

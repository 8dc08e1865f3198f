"""The cells of the Azure notebook (seeds/000) and tutorial (seeds/001), unchanged but for imports, keys and sleeps."""

from __future__ import annotations

import gc
import json
import warnings
from types import SimpleNamespace
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from batchframe.testing import emulator

from .conftest import jsonl


@pytest.fixture(autouse=True)
def files_left_open():
    """Collect the files that the notebook never closes here, not in another test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


# ------------------------------------------------------------------------------------------------- 000, the notebook

UPLOAD = """
# Upload a file with a purpose of "batch"
file = client.files.create(
  file=open("test2-base64-encoded-image.jsonl", "rb"),
  purpose="batch"
)

print(file.model_dump_json(indent=2))
"""
TRACK_FILE = """
# Wait until the uploaded file is in processed state
import time
import datetime
file_id = file_id
status = "pending"
while status != "processed":
    time.sleep(15)
    file_response = client.files.retrieve(file_id)
    status = file_response.status
    print(f"{datetime.datetime.now()} File Id: {file_id}, Status: {status}")
"""
CREATE = """
# Submit a batch job with the file
batch_response = client.batches.create(
    input_file_id=file_id,
    endpoint="/chat/completions",
    completion_window="24h",
)

# Save batch ID for later use
batch_id = batch_response.id

print(batch_response.model_dump_json(indent=2))
"""
TRACK = """
import time
import datetime

status = "validating"
while status not in ("completed", "failed", "canceled"):
    time.sleep(60)
    batch_response = client.batches.retrieve(batch_id)
    status = batch_response.status
    print(f"{datetime.datetime.now()} Batch Id: {batch_id},  Status: {status}")
"""
SHOW = """
print(batch_response.model_dump_json(indent=2))
"""
READ = """
import json

response = client.files.content(batch_response.output_file_id)
raw_responses = response.text.strip().split('\\n')

for raw_response in raw_responses:
    json_response = json.loads(raw_response)
    formatted_json = json.dumps(json_response, indent=2)
    print(formatted_json)
"""
LIST = """
client.batches.list()
"""

# ------------------------------------------------------------------------------------------------- 001, the tutorial

UPLOAD_1 = """
# Upload a file with a purpose of "batch"
file = client.files.create(
    file=open("test.jsonl", "rb"),
    purpose="batch"
)

print(file.model_dump_json(indent=2))
file_id = file.id
"""
TRACK_1 = """
import time
import datetime

status = "validating"
while status not in ("completed", "failed", "canceled"):
    time.sleep(60)
    batch_response = client.batches.retrieve(batch_id)
    status = batch_response.status
    print(f"{datetime.datetime.now()} Batch Id: {batch_id}, Status: {status}")

if batch_response.status == "failed":
    for error in batch_response.errors.data:
        print(f"Error code {error.code} Message {error.message}")
"""
READ_1 = """
import json

output_file_id = batch_response.output_file_id

if not output_file_id:
    output_file_id = batch_response.error_file_id

if output_file_id:
    file_response = client.files.content(output_file_id)
    raw_responses = file_response.text.strip().split('\\n')

    for raw_response in raw_responses:
        json_response = json.loads(raw_response)
        formatted_json = json.dumps(json_response, indent=2)
        print(formatted_json)
"""
LIST_1 = """
all_jobs = []
# Automatically fetches more pages as needed.
for job in client.batches.list(
    limit=20,
):
    # Do something with job here
    all_jobs.append(job)
print(all_jobs)
"""
FILTER_1 = """
import json
from datetime import datetime, timedelta

api_version = "2024-10-01-preview"
url = f"{endpoint}openai/batches"
order = "created_at asc"

time_filter = lambda: generate_time_filter("past 8 hours")

# Additional filter examples:
#time_filter = lambda: generate_time_filter("past 1 day")
#time_filter = lambda: generate_time_filter("past 3 days", status="Completed")

def generate_time_filter(time_range, status=None):
    now = datetime.now()

    if 'day' in time_range:
        days = int(time_range.split()[1])
        start_time = now - timedelta(days=days)
    elif 'hour' in time_range:
        hours = int(time_range.split()[1])
        start_time = now - timedelta(hours=hours)
    else:
        raise ValueError("Invalid time range format. Use 'past X day(s)' or 'past X hour(s)'")

    start_timestamp = int(start_time.timestamp())

    filter_string = f"created_at gt {start_timestamp}"

    if status:
        filter_string += f" and status eq '{status}'"

    return filter_string

filter = time_filter()

headers = {'Authorization': 'Bearer ' + token.token}

params = {
    "api-version": api_version,
    "$filter": filter,
    "$orderby": order
}

response = requests.get(url, headers=headers, params=params)

json_data = response.json()

if response.status_code == 200:
    print(json.dumps(json_data, indent=2))
else:
    print(f"Request failed with status code: {response.status_code}")
    print(response.text)
"""

MODEL = "REPLACE-WITH-MODEL-DEPLOYMENT-NAME"
QUESTIONS = ("When was Microsoft founded?", "When was the first XBOX released?", "What is Altair Basic?")
TASKS = [
    {
        "custom_id": f"task-{number}",
        "method": "POST",
        "url": "/chat/completions",
        "body": {
            "model": MODEL,
            "messages": [
                {"role": "system", "content": "You are an AI assistant that helps people find information."},
                {"role": "user", "content": question},
            ],
        },
    }
    for number, question in enumerate(QUESTIONS)
]
# The cells leave their open files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


class Requests:
    """The part of the library ``requests`` that the cell uses."""

    @staticmethod
    def get(url, headers, params):
        with urlopen(Request(f"{url}?{urlencode(params)}", headers=headers)) as reply:
            content = json.load(reply)
            return SimpleNamespace(status_code=reply.status, json=lambda: content, text="")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run cells in order; each sleep is one step of the service."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test.jsonl").write_bytes(jsonl(*TASKS))
    (tmp_path / "test2-base64-encoded-image.jsonl").write_bytes(jsonl(*TASKS))
    with emulator("azure", progression="stepped", deployments={MODEL: "gpt-4o"}) as service:
        monkeypatch.setattr("time.sleep", lambda seconds: service.step())
        names = {
            "client": service.client(api_version="2024-07-01-preview"),
            "endpoint": service.endpoint + "/",
            "requests": Requests,
            "token": SimpleNamespace(token="x"),
        }

        def run_cell(cell):
            exec(cell, names)
            return capsys.readouterr().out

        run_cell.service, run_cell.names = service, names
        yield run_cell


def test_the_notebook(run):
    run.service.configure(pending_polls=2)
    assert json.loads(run(UPLOAD))["status"] == "pending"
    run.names["file_id"] = run.names["file"].id
    assert [line.split("Status: ")[1] for line in run(TRACK_FILE).splitlines()] == ["pending", "pending", "processed"]
    batch = json.loads(run(CREATE))
    assert (batch["status"], batch["endpoint"], batch["error_file_id"]) == ("validating", "/chat/completions", None)
    statuses = [line.split("Status: ")[1] for line in run(TRACK).splitlines()]
    assert statuses == ["in_progress", "in_progress", "finalizing", "completed"]
    done = json.loads(run(SHOW))
    assert done["request_counts"] == {"completed": 3, "failed": 0, "total": 3}
    assert done["error_file_id"]
    shown = run(READ)
    assert shown.count('"custom_id": "task-') == 3
    assert shown.count('"severity": "safe"') == 3 * 8
    run(LIST)


def test_the_notebooks_list_of_2024(run):
    run.service.configure(oddities=["value_list"])
    run(UPLOAD_1)
    run(CREATE)
    listed = eval(LIST.strip(), run.names)
    assert listed.data is None
    assert [batch["status"] for batch in listed.value] == ["validating"]


def test_the_tutorial(run):
    run.service.configure(oddities=["null_file_status", "null_endpoint", "null_in_progress_at"])
    assert json.loads(run(UPLOAD_1))["status"] is None
    assert json.loads(run(CREATE))["endpoint"] is None
    statuses = [line.split("Status: ")[1] for line in run(TRACK_1).splitlines()]
    assert statuses == ["in_progress", "in_progress", "finalizing", "completed"]
    assert json.loads(run(SHOW))["in_progress_at"] is None
    assert {f"task-{n}" for n in range(3)} == {
        word.strip('",') for line in run(READ_1).splitlines() for word in line.split() if word.startswith('"task-')
    }
    assert "Batch(id='batch_" in run(LIST_1)
    page = json.loads(run(FILTER_1))
    assert [batch["id"] for batch in page["data"]] == [run.names["batch_id"]]


def test_the_tutorial_with_a_wrong_deployment(run):
    run.service.configure(deployments={MODEL: "gpt-4o"}, standard_deployments=[MODEL])
    run(UPLOAD_1)
    run(CREATE)
    assert "Error code invalid_request Message The schema of the input line is invalid" in run(TRACK_1)


def test_the_tutorial_when_every_row_fails(run):
    run.service.row_fault("content_filter", attempts=None)
    for cell in (UPLOAD_1, CREATE, TRACK_1):
        run(cell)
    assert run(READ_1).count('"code": "content_filter"') == 3

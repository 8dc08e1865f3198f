"""The code cells of the OpenAI notebook (seeds/002), unchanged but for the sleeps and the working folder."""

from __future__ import annotations

import gc
import json
import warnings

import pytest

from .conftest import jsonl


@pytest.fixture(autouse=True)
def files_left_open():
    """Collect the files that the notebook never closes here, not in another test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


PREPARE = """
bad_batch_input_file = client.files.create(
    file=open("./artifacts/badbatchinput.jsonl", "rb"),  # Open the file in read-binary mode
    purpose="batch"  # Specify the purpose of the file
)
good_batch_input_file = client.files.create(
    file=open("./artifacts/goodbatchinput.jsonl", "rb"),  # Open the file in read-binary mode
    purpose="batch"  # Specify the purpose of the file
)
"""
CREATE = """
bad_batch_input_file_id = bad_batch_input_file.id
bad_batch = client.batches.create(
    input_file_id=bad_batch_input_file_id,  # ID of the input file for the batch
    endpoint="/v1/chat/completions",  # API endpoint to use for the batch
    completion_window="24h",  # Time window for completion
    metadata={
        "description": "bad nightly penguin job"  # Metadata describing the batch job
    }
)
print(bad_batch)
print("\\n\\n")
good_batch_input_file_id = good_batch_input_file.id
good_batch = client.batches.create(
    input_file_id=good_batch_input_file_id,  # ID of the input file for the batch
    endpoint="/v1/chat/completions",  # API endpoint to use for the batch
    completion_window="24h",  # Time window for completion
    metadata={
        "description": "good nightly penguin job"  # Metadata describing the batch job
    }
)
print(good_batch)
"""
STATUS = """
print(client.batches.retrieve(bad_batch.id))
print("\\n\\n")  # Print newline characters for better readability
print(client.batches.retrieve(good_batch.id))
"""
LIST = """
print(client.batches.list(limit=1))
batches = list(client.batches.list())
print("\\nWe have " + str(len(batches)) + " batches\\n")
for batch in batches:
    print(batch.id)  # Print the batch ID
    print(batch.status)  # Print the batch status
    print(batch.metadata.get("description"))  # Print the batch description from metadata
for batch in batches:
    if batch.metadata.get("description", "").startswith("good"):
        print(batch.id)  # Print the batch ID
        print(batch.status)  # Print the batch status
        print(batch.metadata.get("description"))  # Print the batch description from metadata
"""
CANCEL = """
good_batch_input_file_id = good_batch_input_file.id
dead_batch_walking = client.batches.create(
    input_file_id=good_batch_input_file_id,
    endpoint="/v1/chat/completions",
    completion_window="24h",
    metadata={
        "description": "good nightly penguin job"
    }
)
print(dead_batch_walking)
time.sleep(5)
print(client.batches.retrieve(dead_batch_walking.id))
print(client.batches.cancel(dead_batch_walking.id))
time.sleep(5)
print(client.batches.retrieve(dead_batch_walking.id))
"""
RESULTS = """
content = client.files.content(client.batches.retrieve(good_batch.id).output_file_id)
content.write_to_file("./artifacts/goodbatchoutput.jsonl")
"""


def penguins(topic, number):
    return {
        "custom_id": f"request-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "gpt-4o",
            "messages": [
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": f"Give me three paragraphs on {topic}."},
            ],
            "max_tokens": 1000,
        },
    }


# The notebook leaves its open files to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_the_cells_run(tmp_path, monkeypatch, client, service, capsys):
    topics = ["the penguin lifecycle", "penguin mating habits", "penguin species differences"]
    good = [penguins(topic, number) for number, topic in enumerate(topics, 1)]
    bad = [good[0], {**good[1], "custom_id": "request-1"}, good[2]]
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/goodbatchinput.jsonl").write_bytes(jsonl(*good))
    (tmp_path / "artifacts/badbatchinput.jsonl").write_bytes(jsonl(*bad))
    monkeypatch.chdir(tmp_path)

    class Time:
        """Each sleep of the notebook is one step of the service."""

        sleep = staticmethod(lambda seconds: service.step())

    service.configure(progression="stepped")
    names = {"client": client, "time": Time}
    exec(PREPARE, names)
    exec(CREATE, names)
    assert capsys.readouterr().out.count("status='validating'") == 2
    service.step(5)
    exec(STATUS, names)
    shown = capsys.readouterr().out
    assert "status='failed'" in shown
    assert "code='duplicate_custom_id'" in shown
    assert "line=2" in shown
    assert "BatchRequestCounts(completed=3, failed=0, total=3)" in shown
    exec(LIST, names)
    shown = capsys.readouterr().out
    assert shown.startswith("SyncCursorPage[Batch](data=[Batch(id='batch_")
    assert "has_more=True" in shown
    assert "We have 2 batches" in shown
    assert shown.count("good nightly penguin job") == 3
    exec(CANCEL, names)
    statuses = [word.split("'")[1] for word in capsys.readouterr().out.split() if word.startswith("status=")]
    assert statuses == ["validating", "in_progress", "cancelling", "cancelled"]
    exec(RESULTS, names)
    lines = [json.loads(line) for line in (tmp_path / "artifacts/goodbatchoutput.jsonl").read_text().splitlines()]
    texts = {line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in lines}
    assert texts["request-1"] == "In short: Give me three paragraphs on the penguin lifecycle."
    assert set(texts) == {"request-1", "request-2", "request-3"}

"""chatlas: texts and structured data, over the Responses API and over Chat Completions, from OpenAI and from Azure."""

import json
import os
import sys
from pathlib import Path

from chatlas import (
    ChatAzureOpenAI,
    ChatAzureOpenAICompletions,
    ChatOpenAI,
    ChatOpenAICompletions,
    batch_chat_structured,
    batch_chat_text,
)
from pydantic import BaseModel


class Opinion(BaseModel):
    is_satisfied: bool
    summary: str


kind, prompts = sys.argv[1], json.load(sys.stdin)
system_prompt = "You are terse."
if azure_endpoint := os.environ.get("AZURE_OPENAI_ENDPOINT"):
    make = ChatAzureOpenAICompletions if kind == "completions" else ChatAzureOpenAI
    chat = make(
        endpoint=azure_endpoint,
        deployment_id="gpt-4o-mini",
        api_version="2025-03-01-preview",
        system_prompt=system_prompt,
    )
else:
    make = ChatOpenAICompletions if kind == "completions" else ChatOpenAI
    chat = make(base_url=os.environ["OPENAI_BASE_URL"], model="gpt-4o-mini", system_prompt=system_prompt)

if kind == "structured":
    opinions = batch_chat_structured(chat, prompts, "state.json", Opinion)
    answers = [opinion and opinion.model_dump() for opinion in opinions]
else:
    answers = batch_chat_text(chat, prompts, "state.json")
Path("answers.json").write_text(json.dumps(answers))

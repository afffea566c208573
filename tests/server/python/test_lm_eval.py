"""lm-evaluation-harness against the server: log-likelihoods over prompts, generation, and chats. Its tasks are made here."""
import json
import os

import httpx
import pytest

os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
lm_eval = pytest.importorskip("lm_eval")
from lm_eval.tasks import TaskManager  # noqa: E402

ANIMALS = ["cat", "dog", "owl", "crab", "fish", "snail", "horse", "mouse"]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    rows = [{"question": f"What is a {name}?", "choices": [" an animal", " a number 7 of things"], "answer": i % 2, "text": f"a {name}"}
            for i, name in enumerate(ANIMALS)]
    (folder / "rows.json").write_text("\n".join(json.dumps(row) for row in rows))
    common = f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {folder}/rows.json\ntest_split: test\nnum_fewshot: 0\n"
    (folder / "choice.yaml").write_text("task: gov_choice\noutput_type: multiple_choice\n" + common + """
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
doc_to_choice: "{{choices}}"
metric_list:
  - metric: acc
  - metric: acc_norm
""")
    (folder / "generate.yaml").write_text("task: gov_generate\noutput_type: generate_until\n" + common + """
doc_to_text: "{{question}}"
doc_to_target: "{{text}}"
generation_kwargs:
  until: ["\\n", ".", "!", "?", ";", "Q:"]
  max_gen_toks: 12
metric_list:
  - metric: exact_match
""")
    (folder / "perplexity.yaml").write_text("task: gov_perplexity\noutput_type: loglikelihood_rolling\n" + common + """
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list:
  - metric: word_perplexity
""")
    return TaskManager(include_path=str(folder), include_defaults=False)


def evaluate(tasks, model, url, task, **more):
    arguments = {"model": "nano", "base_url": url, "num_concurrent": 2, "max_retries": 1, "timeout": 120, **more}
    return lm_eval.simple_evaluate(model=model, model_args=arguments, tasks=[task], task_manager=tasks, log_samples=True, bootstrap_iters=0,
                                   apply_chat_template=model == "local-chat-completions")


def score(url, context, continuation):
    """A continuation's log-likelihood, counted by hand from one request."""
    ids = [httpx.post(f"{url}/tokenize", json={"prompt": text, "add_special_tokens": False}).json()["tokens"] for text in (context + continuation, context)]
    answer = httpx.post(f"{url}/v1/completions", json={"prompt": ids[0], "max_tokens": 0, "echo": True, "logprobs": 0}, timeout=60).json()
    return sum(answer["choices"][0]["logprobs"]["token_logprobs"][len(ids[1]):])


@pytest.mark.parametrize("batch", [1, 3])
def test_loglikelihoods(server, tasks, batch):
    result = evaluate(tasks, "local-completions", server.url + "/v1/completions", "gov_choice", batch_size=batch, tokenizer_backend="remote",
                      max_length=2048)
    assert result["results"]["gov_choice"]["acc,none"] >= 0
    samples = result["samples"]["gov_choice"]
    assert len(samples) == len(ANIMALS)
    for sample in samples[:3]:
        for (value, _), choice in zip(sample["filtered_resps"], sample["doc"]["choices"]):
            assert float(value) == pytest.approx(score(server.url, sample["doc"]["question"], " " + choice), abs=1e-4)


def test_rolling_loglikelihoods(server, tasks):
    result = evaluate(tasks, "local-completions", server.url + "/v1/completions", "gov_perplexity", tokenizer_backend="remote", max_length=2048)
    assert result["results"]["gov_perplexity"]["word_perplexity,none"] > 1


def test_generation(server, tasks):
    result = evaluate(tasks, "local-completions", server.url + "/v1/completions", "gov_generate", tokenizer_backend="remote", max_length=2048)
    assert len(result["samples"]["gov_generate"]) == len(ANIMALS)
    for sample in result["samples"]["gov_generate"]:
        assert not set(sample["resps"][0][0]) & set("\n.!?;")


def test_chats(server, tasks):
    result = evaluate(tasks, "local-chat-completions", server.url + "/v1/chat/completions", "gov_generate")
    assert len(result["samples"]["gov_generate"]) == len(ANIMALS)
    assert all(isinstance(sample["resps"][0][0], str) for sample in result["samples"]["gov_generate"])

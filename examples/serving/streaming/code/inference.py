"""A handler that streams: text that is made word by word is sent word by word, as server-sent events.

    serve --model examples/serving/streaming
    curl -N -d '{"start": "the", "words": 12}' localhost:8080/invocations

`transform_fn` returns a generator and a content type. When the client leaves, the generator is closed.
"""

import json
import random
from collections import defaultdict
from itertools import pairwise
from pathlib import Path


def model_fn(model_dir):
    """Return which words follow which in text.txt: a language model of the simplest kind."""
    words = (Path(model_dir) / "text.txt").read_text(encoding="utf-8").split()
    follows = defaultdict(list)
    for word, after in pairwise(words):
        follows[word].append(after)
    return dict(follows)


def transform_fn(model, request_body, content_type, accept):
    """Return the words one by one, each an event."""
    request = json.loads(request_body)
    return words(model, request["start"], request.get("words", 10)), "text/event-stream"


def words(follows, word, count):
    """Yield events until there are enough words, or none follows."""
    chosen = random.Random(0)
    for _ in range(count):
        yield f"data: {json.dumps({'word': word})}\n\n"
        if word not in follows:
            break
        word = chosen.choice(follows[word])
    yield "data: [DONE]\n\n"

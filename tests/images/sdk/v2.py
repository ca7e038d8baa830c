"""Run by the Python that has SDK v2: train and deploy in Local Mode. It leaves what the endpoint answered."""

import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3
from sagemaker.deserializers import JSONDeserializer
from sagemaker.estimator import Estimator
from sagemaker.local import LocalSession
from sagemaker.serializers import JSONSerializer

given = json.loads(sys.argv[1])
base = Path(given["base"])
session = LocalSession(boto3.Session(region_name="eu-west-1"))
session.config = {"local": {"local_code": True, "container_root": given["base"], "serving_port": given["port"]}}
estimator = Estimator(
    image_uri=given["image"],
    role="arn:aws:iam::111111111111:role/local",
    instance_count=1,
    instance_type="local",
    entry_point="train.py",
    source_dir=given["code"],
    hyperparameters=given["hyperparameters"],
    output_path=f"file://{base / 'output'}",
    environment={"MOORING_PROCESSES_PER_HOST": "2"},
    sagemaker_session=session,
)
estimator.fit({"train": f"file://{given['data']}"})
predictor = estimator.deploy(1, "local", wait=False, serializer=JSONSerializer(), deserializer=JSONDeserializer())
try:
    for _ in range(600):  # the SDK's own wait looks every five seconds
        try:
            urllib.request.urlopen(f"http://localhost:{given['port']}/ping")
            break
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    answer = predictor.predict(given["query"])
finally:
    predictor.delete_endpoint()
(base / "answer.json").write_text(json.dumps(answer))

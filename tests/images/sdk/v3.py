"""Run by the Python that has SDK v3: train and deploy in Local Mode. It leaves what the endpoint answered."""

import json
import sys
from pathlib import Path

import boto3
from sagemaker.core.local.local_session import LocalSession
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, SourceCode
from sagemaker.train.distributed import Torchrun
from sagemaker.train.model_trainer import Mode

given = json.loads(sys.argv[1])
base = Path(given["base"])
session = LocalSession(boto3.Session(region_name="eu-west-1"))
session.config = {"local": {"local_code": True, "container_root": given["base"], "serving_port": given["port"]}}
trainer = ModelTrainer(
    training_mode=Mode.LOCAL_CONTAINER,
    training_image=given["image"],
    source_code=SourceCode(source_dir=given["code"], entry_script="train.py"),
    distributed=Torchrun(process_count_per_node=2),
    compute=Compute(instance_type="local_cpu", instance_count=1),
    hyperparameters=given["hyperparameters"],
    role="arn:aws:iam::111111111111:role/local",
    sagemaker_session=session,
    base_job_name="local",
    local_container_root=given["base"],
)
trainer.train(input_data_config=[InputData(channel_name="train", data_source=given["data"])])
model = base / "compressed_artifacts/model.tar.gz"
client = session.sagemaker_client
container = {"Image": given["image"], "ModelDataUrl": f"file://{model}", "Environment": {}}
variant = {"VariantName": "all", "ModelName": "m", "InstanceType": "local", "InitialInstanceCount": 1}
client.create_model("m", container)
client.create_endpoint_config("c", [variant])
client.create_endpoint("e", "c")
try:
    answer = session.sagemaker_runtime_client.invoke_endpoint(
        json.dumps(given["query"]), "e", ContentType="application/json", Accept="application/json"
    )
finally:
    client.delete_endpoint("e")
(base / "answer.json").write_bytes(answer["Body"].read())

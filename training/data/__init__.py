"""The data of a training job: channels in every input mode, read so that a resumed run goes on at the same sample."""

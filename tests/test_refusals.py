"""Whatever is typed wrong, at any command: one line that names it, before anything is made."""

import dataclasses

import pytest

import commands
import configs
from experiments import claims
from experiments.lab import experiment

OWN = ("configs", "train.loop", "experiments.results", "experiments.plots", "experiments.lab.store")
COMMANDS = commands.Commands(*OWN)

BIG = 2**31
ONE_DEVICE = {"JAX_NUM_CPU_DEVICES": "1"}

# command -> (flags, a part of the line each)
TYPED = {
    "train": [
        ("extra", "unexpected argument 'extra'"),
        ("--wrokdir=x", "'wrokdir'. Did you mean: workdir"),
        ("--describe=addingg", "--describe=addingg: no such cell or task; did you mean 'adding'?"),
        ("--init=", "--init is empty"),
        ("--init=nowhere", "config.init=nowhere: nowhere does not exist"),
        ("--init=a --config.init=b", "--init=a and --config.init=b say different things"),
        ("--continue=", "--continue is empty"),
        ("--continue=nowhere", "--continue=nowhere is no run's folder"),
        ("--continue=x --config=gru", "--continue and --config exclude each other"),
        ("--continue=x --overwrite", "--continue and --overwrite exclude each other"),
        ("--workdir=", "--workdir is empty"),
        ("--workdir=  ", "--workdir is empty"),
        ("--data_dir=", "--data_dir is empty"),
        ("--devices=-1", "--devices=-1"),
        ("--devices=100000", "--devices=100000"),
        ("--devices=two", "--devices=two"),
        ("--allocator=fast", "--allocator=fast"),
        ("--overwrite=perhaps", "--overwrite=perhaps"),
        (f"--workdir={'x' * 300}", "File name too long"),
        ("--overwrite", "--overwrite has no effect: without --workdir"),
        (f"--config.optim.learning_rate=1{'0' * 400}", "config.optim.learning_rate must be float"),
        ("--config=", "--config names nothing"),
        ("--config", "--config needs a value"),
        ("--config.train.steps", "--config.train.steps needs a value"),
        ("--config=gruu", "no config 'gruu'; did you mean 'gru'?"),
        ("--config=/none/sru.py", "no config '/none/sru.py'"),
        ("--config=elsewhere/sru", "no config 'elsewhere/sru'"),
        ("--config=configs/none.py", "no config 'configs/none.py'"),
        ("--config=compare", "compare does not define get_config()"),
        ("--config=.", "is a folder without a config.json"),
        ("--config=none.json", "none.json is not a saved config"),
        ("--config.=3", "config has no field ''"),
        ("--config.train=3", "config.train is a section"),
        ("--config.cell.name=gruu", "did you mean 'gru'?"),
        ("--config.cell.name=", "unknown cell ''"),
        ("--config.task.name=adding_", "did you mean 'adding'?"),
        ("--config.trian.steps=3", "did you mean 'train'?"),
        ("--config.train.stepz=3", "did you mean 'steps'?"),
        ("--config.cell.peepholes=true", "config.cell of 'sru' has no field 'peepholes'"),
        ("--config.task.gap=0", "gap must be at least 1"),
        (f"--config.task.gap={BIG}", f"gap must be below {BIG}"),
        ("--config.task.gap=2000000000", "states of 32 x 2000000002 steps"),
        ("--config.task.name=mixed_recall --config.task.lag=99999", "lag"),
        ("--config.task.name=digits --config.task.pixels_per_step=7", "pixels_per_step must be a divisor"),
        ("--config.task.name=sentence --config.task.dataset=imdb", "dataset"),
        ("--config.task.name=word_problem --config.task.group=s6", "group"),
        ("--config.train.seeds=1000000000", "parameters and optimiser"),
        ("--config.train.seed=2147483647 --config.train.seeds=2", "the last seed"),
        ("--config.cell.hidden_size=1000000", "smaller cell.hidden_size"),
        ("--config.train.batch_size=2000000000", "smaller train.batch_size"),
        ("--config.train.batch_devices=3", "train.batch_devices = 3 must divide"),
        ("--config.optim.momentum=0.5", "config.optim.optimizer='adam' overrules it"),
        ("--config.optim.optimizer=sgd --config.optim.momentum=2.0", "momentum must be 0 to 1"),
        ("--config.optim.weight_decay=0.1 --config.optim.optimizer=adam", "weight_decay"),
        ("--config.optim.optimizer=adamm", "did you mean 'adam'?"),
        ("--config.optim.schedule=step", "schedule"),
        ("--config.optim.schedule=constant --config.optim.final_fraction=0.5", "final_fraction"),
        ("--config.optim.learning_rates=0.1,0.1", "learning_rates must be different numbers"),
        ("--config.optim.learning_rates=0.1 --config.optim.learning_rate=0.2", "overrules it"),
        ("--config.optim.final_fraction=1.5", "final_fraction must be 0 to 1"),
        ("--config.model.dropout=1.0", "dropout must be in [0, 1)"),
        ("--config.model.dropout=nan", "dropout"),
        ("--config.model.variational=true", "config.model.dropout=0.0 overrules it"),
        ("--config.model.block=gatd", "did you mean 'gated'?"),
        ("--config.model.block=gated --config.model.connection=residual", "block='gated' overrules it"),
        ("--config.model.conv_width=3", "config.model.block='bare' overrules it"),
        ("--config.model.strategy=associativ", "strategy"),
        ("--config=lstm --config.model.strategy=associative", "LSTM cannot use strategy"),
        ("--config.model.strategy=newton:window=x", "window must be an integer"),
        ("--config.model.remat=-2", "remat must be an integer, -1 to"),
        ("--config.model.compute_dtype=float16", "compute_dtype"),
        ("--config.parameters=1", "parameters"),
        ("--config.parameters=5000 --config.cell.hidden_size=9", "config.parameters=5000 overrules it"),
        ("--config=rnn --config.chrono=cell", "config.chrono='cell' has no effect"),
        ("--config.chrono=never", "chrono"),
        ("--config.train.tensorboard=true", "without --workdir nothing is written"),
        ("--config.train.checkpoint_seconds=3", "without --workdir nothing is written"),
        ("--config.train.logger=trackio", "without --workdir nothing is written"),
        ("--config.train.logger=wandbb --workdir=x", "did you mean 'wandb'?"),
        ("--config.train.checkpoint_seconds=-1 --workdir=x", "checkpoint_seconds must be 0 or more"),
        ("--config.task.name=mnist --data_dir=nowhere", "no such folder: nowhere (--data_dir)"),
        ("--process=0", "--process has no effect without --coordinator"),
        ("--patience=5", "--patience has no effect without --coordinator"),
        ("--coordinator=here --processes=2 --process=0", "--coordinator=here must be HOST:PORT"),
        ("--coordinator=:80 --processes=2 --process=0", "--coordinator=:80 must be HOST:PORT"),
        ("--coordinator=a:99999 --processes=2 --process=0", "--coordinator=a:99999 must be HOST:PORT"),
        ("--coordinator=a:80 --processes=2", "needs --process as well"),
        ("--coordinator=a:80 --process=0", "needs --processes as well"),
        ("--coordinator=a:80 --processes=2 --process=2", "--process=2 must be below --processes=2"),
        ("--coordinator=a:80 --processes=0 --process=0", "--processes=0"),
        ("--coordinator=auto --process=1", "--process has no effect with --coordinator=auto"),
        ("--coordinator=a:80 --processes=2 --process=0 --patience=0", "--patience=0"),
    ],
    "compare": [
        ("extra", "unexpected argument 'extra'"),
        ("--celsl=gru", "'celsl'. Did you mean: cells"),
        ("--workdir=", "--workdir is empty"),
        ("--seeds=0", "--seeds=0"),
        ("--seeds=many", "--seeds=many"),
        ("--steps=0", "--steps=0"),
        ("--steps=99999999999999", "steps must be a whole number"),
        ("--parameters=-1", "--parameters=-1"),
        ("--cells=", "--cells names none"),
        ("--tasks=", "--tasks names none"),
        ("--cells=grue", "did you mean 'gru'?"),
        ("--cells=gru,gru", "--cells names 'gru' twice"),
        ("--cells=gru:reset_afte=true", "did you mean 'reset_after'?"),
        ("--cells=gru:reset_after", "write an option as name=value"),
        ("--cells=gru:reset_after=3", "reset_after must be bool"),
        ("--cells=lstm,lstm:peepholes=false", "are the same run"),
        ("--tasks=addingg", "did you mean 'adding'?"),
        ("--tasks=delayed_recall:gap=5:gap=6", "says gap twice"),
        ("--tasks=delayed_recall:gapp=5", "did you mean 'gap'?"),
        ("--tasks=delayed_recall:gap=0", "gap must be at least 1"),
        ("--config=", "--config names nothing"),
        ("--config=sru", "sru is not a sweep"),
        ("--config=comparee", "no config 'comparee'; did you mean 'compare'?"),
        ("--config.cell.name=gru", "use --cells"),
        ("--config.task.name=adding", "use --tasks"),
        ("--config.label=x", "config.label is not for a comparison"),
        ("--config.train.stepz=3", "did you mean 'steps'?"),
        ("--seeds=3 --config.train.seeds=4", "say different things"),
        ("--config.optim.momentum=0.5", "overrules it"),
        ("--config.task.lenth=3", "has no field 'lenth'"),
    ],
    "sweep": [
        ("", "name a sweep"),
        ("extra", "unexpected argument 'extra'"),
        ("--config=", "--config names nothing"),
        ("--cnofig=rates", "'cnofig'. Did you mean: config"),
        ("--config=ratez", "no config 'ratez'; did you mean 'rates'?"),
        ("--config=sru", "sru is not a sweep"),
        ("--config=rates --workdir=", "--workdir is empty"),
        ("--config=rates --cells=grue", "did you mean 'gru'?"),
        ("--config=rates --vary=train.seed", "--vary=train.seed: write FIELD=VALUE,VALUE"),
        ("--config=rates --vary=train.seed=", "--vary=train.seed=: write FIELD=VALUE,VALUE"),
        ("--config=rates --vary=train.seed=1,1", "name different values"),
        ("--config=rates --vary=train.seed=1 --vary=train.seed=2", "--vary names train.seed twice"),
        ("--config=rates --vary=train.sede=1,2", "did you mean 'seed'?"),
        ("--config=rates --vary=train.seed=a,b", "config.train.seed must be int, got 'a'"),
        ("--config=rates --vary=task.name=adding", "config.task.name"),
        ("--config=rates --config.train.seed=3", "config.train.seed is set twice"),
        ("--config=rates --tasks=adding:length=9 --vary=task.length=3,4", "config.task.length is set twice"),
        ("--config=rates --workers=-1", "--workers=-1"),
        ("--config=rates --engine=ray --address=here", "--address=here must be HOST:PORT"),
        ("--config=rates --engine=ray --address=127.0.0.1:9", "--address=127.0.0.1:9: no cluster there"),
        ("--config=rates --patience=0", "--patience=0"),
        ("--config=rates --retries=many", "--retries=many"),
        ("--config=rates --seeds=4", "have seed 1 in common"),
        ("--config=rates --dry-run", "--dry-run has no effect with --engine=local: it is of slurm"),
        ("--config=rates --engine=slurm --patience=9", "--patience has no effect with --engine=slurm"),
        ("--config=rates --engine=ray --workers=2", "--workers has no effect with --engine=ray"),
        ("--config=rates --devices=2", "--devices has no effect"),
        ("--config=rates --allocator=kept", "--allocator has no effect"),
        ("--config=rates --engine=spark", "--engine=spark"),
    ],
    "claims": [
        ("extra", "unexpected argument 'extra'"),
        ("--only=gate", "did you mean 'gates'?"),
        ("--preset=fastest", "--preset=fastest"),
        ("--config=sru", "claims has presets only"),
        ("--config.seeds=3", "claims has presets only"),
        ("--cells=gru", "claims has presets only"),
        ("--seeds=0", "--seeds=0"),
        ("--workers=-1", "--workers=-1"),
        ("--workdir=", "--workdir is empty"),
    ],
    "speed": [
        ("extra", "unexpected argument 'extra'"),
        ("--parts=layer", "did you mean 'layers'?"),
        ("--preset=goal", "did you mean 'goals'?"),
        ("--sizes=32x512", "32x512"),
        ("--sizes=0x1x1", "0x1x1"),
        ("--cells=grue", "did you mean 'gru'?"),
        ("--strategies=associativ", "did you mean 'associative'?"),
        ("--passes=backward", "backward"),
        ("--rivals=tensorflow", "tensorflow"),
        ("--repeats=0", "--repeats=0"),
        ("--config=sru", "takes no --config flags"),
        ("--workdir=", "--workdir is empty"),
    ],
    "reference": [
        ("extra", "unexpected argument 'extra'"),
        ("--result=jsp", "did you mean 'jsb'?"),
        ("--result=", "unknown result ''"),
        ("--run=jsp", "did you mean 'jsb'?"),
        ("--record=jsp --workdir=x", "did you mean 'jsb'?"),
        ("--record=jsb", "--record needs --workdir"),
        ("--record=jsb --workdir=nowhere", "no such directory: nowhere"),
        ("--result=jsb --run=jsb", "exclude each other"),
        ("--config=jsb", "a result names its sweep"),
        ("--config.train.steps=3", "config.train.steps has no effect without --run"),
        ("--seeds=3", "--seeds has no effect without --run"),
        ("--result=jsb --workdir=x", "--workdir has no effect without --run"),
        ("--run=jsb --workdir=", "--workdir is empty"),
        ("--run=jsb --out=x.png", "--out has no effect with --run"),
        ("--out=x.pdf", "--out=x.pdf must end in .png"),
        ("--run=jsb --cells=grue", "did you mean 'gru'?"),
        ("--run=mr --tasks=adding", "--tasks has no effect"),
    ],
    "report": [
        ("", "name a directory of runs"),
        ("nowhere", "no such directory: nowhere"),
        (".", "no runs"),
        ("--out= .", "--out is empty"),
        ("--titel=x .", "'titel'. Did you mean: title"),
        ("--x= .", "--x names no option"),
    ],
    "sample": [
        ("", "--run=FOLDER is missing"),
        ("extra", "unexpected argument 'extra'"),
        ("--run=nowhere", "--run=nowhere: nowhere does not exist"),
        ("--run=. --promt=a", "'promt'. Did you mean: prompt"),
        ("--run=. --characters=0", "--characters=0"),
        ("--run=. --temperature=-1", "--temperature=-1"),
        ("--config=sru", "sample takes no --config"),
    ],
    "export": [
        ("", "--run=FOLDER is missing"),
        ("extra", "unexpected argument 'extra'"),
        ("--run=x", "--out=FILE is missing"),
        ("--run=x --out=", "--out is empty"),
        ("--run=nowhere --out=m.bin", "nowhere does not exist"),
        ("--run=. --out=m.bin", ". is no run's folder"),
        ("--run=. --out=.", "--out=. is a folder"),
        ("--run=. --out=none/m.bin", "no such folder: none"),
        ("--run=. --otu=x", "'otu'. Did you mean: out"),
        ("--run=. --out=m.bin --platforms=cpu,gpu", "unknown platform 'gpu'; choices: cpu, cuda, tpu, rocm"),
        ("--run=. --out=m.bin --platforms=", "no platform; choices: cpu, cuda"),
        ("--run=. --out=m.bin --at=first", "--at=first"),
        ("--run=. --out=m.bin --seed=-1", "--seed=-1"),
        ("--config=sru", "export takes no --config"),
    ],
    "compiled": [
        ("extra", "unexpected argument 'extra'"),
        ("--targets=tpus", "did you mean 'tpu'?"),
        ("--sizes=4x4", "4x4"),
        ("--cells=grue", "did you mean 'gru'?"),
        ("--config=sru", "takes no --config flags"),
        ("--workdir=", "--workdir is empty"),
    ],
    "cells": [("extra", "unexpected argument 'extra'"), ("--wriet", "'wriet'. Did you mean: write")],
    "gradients": [
        ("extra", "unexpected argument 'extra'"),
        ("--config=sru", "no --config"),
        ("--config.tme=64", "did you mean 'time'?"),
        ("--cells=grue", "did you mean 'gru'?"),
        ("--cells=", "config.cells names none"),
        ("--cells=gru,gru", "config.cells has 'gru' twice"),
        ("--seeds=0", "--seeds=0"),
        ("--preset=quik", "--preset=quik"),
        ("--workdir=", "--workdir is empty"),
    ],
    "horizon": [
        ("--config.shortest=8 --config.longest=4", "config.longest must be at least config.shortest = 8"),
        ("--config.tasks=digits", "config.tasks: unknown 'digits'"),
        ("--config.width=3", "experiments.parallel has it"),
    ],
    "gates": [("--cells=rnn", "rnn has no gates"), ("--config.lag=99", "lag")],
    "parallel": [("--config.path_times=16", "config.path_times must be two lengths or more")],
    "depth": [
        ("--config.threshold=1.5", "config.threshold"),
        ("--config.pixels_per_step=7", "pixels_per_step"),
    ],
    "newton": [
        ("--config.trained=grue", "did you mean 'gru'?"),
        ("--config.timed=grue", "did you mean 'gru'?"),
        ("--config.times=8,2", "config.times"),
    ],
    "convolution": [("--config.tasks=digitz", "did you mean 'digits'?")],
    "identities": [
        ("--cells=gru", "this experiment has no --cells"),
        ("--workers=2", "--workers has no effect: identities trains no model"),
    ],
}  # fmt: skip


def other_values(name, value, whole):
    """Texts that a setting of this value cannot take."""
    if isinstance(value, bool):
        return ["2", "perhaps"]
    if whole:
        return ["0", "2.5", str(BIG)]
    if isinstance(value, float):
        return ["0", "nan", "many"]
    if isinstance(value, tuple) and not isinstance(value[0], str):
        return ["()", "0", "1,1"]
    return ["nosuch"]


def settings():
    """(command, flags, part) for every setting of every experiment."""
    for name in claims.EXPERIMENTS:
        protocol = experiment.of(name).protocol["quick"]
        whole = protocol.whole()
        for field in dataclasses.fields(protocol):
            value = getattr(protocol, field.name)
            is_whole = field.name in whole and not isinstance(value, tuple)
            for text in other_values(field.name, value, is_whole):
                if text == "0" and protocol.least.get(field.name) == 0:
                    continue
                if text == "()" and field.name in protocol.optional:
                    continue
                part = "unknown" if field.name in experiment.OF_CELLS else field.name
                yield name, f"--config.{field.name}={text}", part


def fields():
    """Likewise for every field of a run's config: a value of another type, a number out of range."""
    config = configs.make("lstm")
    for path, value in configs.flat(config.to_dict()).items():
        if path in ("cell.name", "task.name", "label"):
            continue
        texts = {bool: ["2"], int: ["many", "-7", str(BIG)], float: ["many", "-7", "1e999"], str: ["nosuch"]}
        if path.startswith("cell.") and isinstance(value, float):
            texts[float].remove("-7")  # a bias may be
        for text in texts.get(type(value), ["many"]):
            yield "train", f"--config=lstm --config.{path}={text} --workdir=x", path.split(".")[-1]


TRIES = [(command, flags, part) for command, tries in TYPED.items() for flags, part in tries]
TRIES += [*settings(), *fields()]


def test_there_are_many_tries_and_of_every_command():
    assert len(TRIES) >= 400
    run_by_hand = {path.stem for path in commands.ROOT.glob("experiments/*.py")} | {"reference", "speed"}
    modules = {name for name in run_by_hand if '__name__ == "__main__"' in source(name)}
    assert modules == {command for command, _, _ in TRIES}


def source(name):
    path = commands.ROOT / "experiments" / f"{name}.py"
    return (path if path.exists() else commands.ROOT / "experiments" / name / "__main__.py").read_text()


# Experiments share their rule of settings: one of them stands for all.
ALIKE = [name for name in claims.EXPERIMENTS if name != "gradients"]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=[pytest.mark.slow] * (command in ALIKE))
        for command in sorted({command for command, _, _ in TRIES})
    ],
)
def test_a_bad_command_line_is_refused_in_one_line_that_names_it(command, tmp_path):
    wrong = []
    for of, flags, part in TRIES:
        if of == command:
            folder = tmp_path / str(len(wrong))
            folder.mkdir(exist_ok=True)
            done = COMMANDS.run(f"experiments.{command}", *flags.split(), cwd=folder, limit=10, **ONE_DEVICE)
            lines, made = done.stderr.splitlines(), [path.name for path in folder.iterdir()]
            one = len(lines) == 1 and lines[0].startswith("error: ") and done.returncode == 2
            if not one or part not in lines[0] or made:
                wrong.append((flags, part, done.returncode, done.stderr[-300:], made))
    assert not wrong, "\n".join(map(str, wrong))

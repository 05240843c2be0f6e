"""What EMR does wrong, and what becomes of it: each defect against a server that really runs the driver."""

import copy
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import boto3
import dagster as dg
import pytest

from lens_assets.remote import spark_main
from lens_assets.resources.emr.client import EmrPipes, Remote, RemoteFailure
from lens_assets.resources.emr.clusters import EmrSteps
from lens_assets.resources.emr.job import Handle, State, TookTooLong, wait
from lens_assets.resources.emr.serverless import EmrServerlessJobs
from lens_assets.resources.emr.settings import EmrSettings

pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]
OPEN = """
import sys, time, os, boto3
from dagster_pipes import PipesCliArgsParamsLoader, PipesS3ContextLoader, PipesS3MessageWriter, open_dagster_pipes
s3 = boto3.client("s3")
pipes = open_dagster_pipes(params_loader=PipesCliArgsParamsLoader(), context_loader=PipesS3ContextLoader(client=s3),
                           message_writer=PipesS3MessageWriter(client=s3, interval=1))
def tell(kind, **more): pipes.report_custom_message({"kind": kind, "token": pipes.get_extra("token"), **more})
"""
DRIVERS = {
    "works": OPEN
    + "print('hello from the driver'); tell('tile', report='1'); tell('finished', tiles=1); pipes.close()",
    "slow": OPEN + "time.sleep(2); tell('finished', tiles=0); pipes.close()",
    "raises": "raise RuntimeError('no space left on device')",
    "raises_late": OPEN + "with pipes:\n  tell('tile', report='1')\n  raise RuntimeError('lost an executor')",
    "silent": "print('did nothing at all')",
    "half": OPEN + "tell('tile', report='1'); time.sleep(2.5); os._exit(0)",
    "forger": OPEN + "pipes.report_custom_message({'kind': 'finished', 'token': 'of another call'}); pipes.close()",
    "forever": "import time\nprint('waiting', flush=True)\ntime.sleep(600)",
}


@pytest.fixture(scope="module")
def drivers(cloud):
    """Upload drivers that need no Spark; by name the address of each."""
    for name, text in DRIVERS.items():
        cloud.s3.put_object(Bucket="engines-tests", Key=f"code/plain_{name}.py", Body=text.encode())
    return {name: f"s3://engines-tests/code/plain_{name}.py" for name in DRIVERS}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Dagster waits 10 s for messages that may still come after a driver has ended; here one."""
    monkeypatch.setattr("dagster._core.pipes.utils.WAIT_FOR_LOGS_AFTER_EXECUTION_INTERVAL", 1)
    monkeypatch.setattr("dagster._core.pipes.utils.DEFAULT_SLEEP_INTERVAL", 0.1)


@pytest.fixture
def pipes(cloud, drivers, settings_dict):
    """A client for one of the drivers, on a cluster or serverless."""

    def make(driver: str, kind: str = "cluster", **more) -> EmrPipes:
        clocks = {key: more.pop(key) for key in ("clock", "sleep") if key in more}
        settings = EmrSettings.model_validate({**settings_dict, "entry": drivers[driver], **more})
        if kind == "cluster":
            return EmrPipes(settings, EmrSteps(settings, boto3.client("emr")), cloud.s3, **clocks)
        return EmrPipes(settings, EmrServerlessJobs(settings, boto3.client("emr-serverless")), cloud.s3, **clocks)

    return make


def call(pipes: EmrPipes) -> tuple[dg.ExecuteInProcessResult, list[Remote], list[BaseException]]:
    """Run an asset whose body is one call: the result, what came back, what was raised."""
    got, raised = [], []

    @dg.asset
    def remote(context: dg.AssetExecutionContext):
        try:
            got.append(pipes.run(context=context, name="toy", extras={"asset": "toy"}))
        except BaseException as fault:
            raised.append(fault)
            raise
        yield dg.MaterializeResult(metadata=got[0].metadata)

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([remote], instance=instance, raise_on_error=False)
    return result, got, raised


def failure(pipes: EmrPipes) -> str:
    """The message of a call that must fail, and be a failure in Dagster."""
    result, got, raised = call(pipes)
    assert not result.success
    assert not got
    assert not result.asset_materializations_for_node("remote")
    assert isinstance(raised[0], RemoteFailure), raised[0]
    return str(raised[0])


@pytest.mark.parametrize("kind", ["cluster", "serverless"])
def test_a_driver_that_works_is_a_success_with_its_messages_and_the_ids_of_its_job(pipes, kind, capfd):
    result, got, _ = call(pipes("works", kind))
    assert result.success
    assert [m["kind"] for m in got[0].messages] == ["tile", "finished"]
    (event,) = result.asset_materializations_for_node("remote")
    assert any(re.fullmatch("EMR (step|Serverless job)", key) for key in event.metadata)
    assert capfd.readouterr().out.count("hello from the driver") == 1


@pytest.mark.parametrize("kind", ["cluster", "serverless"])
def test_a_driver_that_raises_is_a_failure_with_its_reason_from_the_logs(pipes, cloud, kind):
    text = failure(pipes("raises", kind))
    assert "no space left on device" in text
    assert "stderr.gz" in text
    if kind == "cluster":
        assert all(c.state == "WAITING" for c in cloud.clusters.values() if c.state != "TERMINATED")
        assert all(s.action_on_failure == "CONTINUE" for c in cloud.clusters.values() for s in c.steps)


def test_a_driver_that_raises_after_it_reported_is_a_failure(pipes):
    assert "FAILED" in failure(pipes("raises_late"))


@pytest.mark.parametrize("kind", ["cluster", "serverless"])
def test_a_driver_that_ends_well_and_says_nothing_is_a_failure(pipes, kind):
    text = failure(pipes("silent", kind))
    assert "nothing came back" in text
    assert "did nothing at all" in text


def test_a_driver_whose_session_is_lost_on_the_way_is_a_failure(pipes, cloud):
    cloud.lose_session = True
    try:
        text = failure(pipes("works"))
    finally:
        cloud.lose_session = False
    assert "nothing came back" in text or "FAILED" in text


def test_a_driver_that_stops_in_the_middle_with_status_zero_is_a_failure(pipes):
    assert "did not say that it finished" in failure(pipes("half"))


def test_the_word_of_another_call_does_not_count(pipes):
    assert "did not say that it finished" in failure(pipes("forger"))


def test_classifications_of_ones_own_reach_the_cluster_and_take_nothing_away(pipes, cloud, settings_dict):
    result, _, _ = call(pipes("works"))
    assert result.success
    (cluster,) = [c for c in cloud.clusters.values() if c.state == "WAITING"]
    assert len(cluster.configurations) == len(settings_dict["cluster"]["configurations"]) == 2
    assert "DAGSTER" not in str(cluster.configurations)


class Clock:
    """Time that passes when somebody sleeps: ``scale`` seconds for one."""

    def __init__(self, scale: float) -> None:
        self.now, self.scale = 0.0, scale

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds * self.scale
        time.sleep(seconds)


def test_a_job_of_hours_is_waited_for(pipes):
    clock = Clock(3600)  # the driver's 2 s are two hours of ours
    result, _, raised = call(pipes("slow", max_hours=100, clock=clock, sleep=clock.sleep))
    assert result.success, raised
    assert clock.now > 2 * 1800


def test_a_job_over_its_hours_is_cancelled_and_a_failure(pipes, cloud):
    clock = Clock(3600)
    text = failure(pipes("forever", max_hours=2, clock=clock, sleep=clock.sleep))
    assert "not over after 2 h" in text
    assert "cancelled" in text
    assert all(
        step.state != "RUNNING" for c in cloud.clusters.values() for step in c.steps if step.id in cloud.cancelled
    )


def test_a_service_that_does_not_answer_for_a_while_is_asked_again_and_one_that_never_does_is_given_up():
    from botocore.exceptions import ClientError, EndpointConnectionError

    class Moody:
        kind = "toy"

        def __init__(self, answers):
            self.answers = list(answers)

        def state(self, handle):
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

    throttled = ClientError({"Error": {"Code": "ThrottlingException"}}, "DescribeStep")
    away = EndpointConnectionError(endpoint_url="http://emr")
    said, handle = [], Handle("c", "s", {})

    def waiting(*answers):
        clock = Clock(1)
        clock.sleep = lambda s: setattr(clock, "now", clock.now + s)
        done = wait(
            Moody(answers), handle, max_hours=9, poll_seconds=30, say=said.append, clock=clock, sleep=clock.sleep
        )
        return done, clock.now

    running, done = State("running", "RUNNING"), State("succeeded", "COMPLETED")
    assert waiting(running, *[throttled] * 10, running, *[away] * 10, done) == (done, 22 * 30.0)
    assert sum("asking again" in text for text in said) == 20
    with pytest.raises(EndpointConnectionError):
        waiting(running, away)
    with pytest.raises(TookTooLong):
        waiting(running)


def test_the_second_call_goes_to_the_running_cluster_and_a_terminated_one_is_replaced(pipes, cloud):
    emr = boto3.client("emr")
    call(pipes("works"))
    alive = [c.id for c in cloud.clusters.values() if c.state == "WAITING"]
    _, (second,), _ = call(pipes("works"))
    assert second.metadata["EMR cluster"] in alive
    assert second.metadata["EMR cluster reused"] is True
    emr.terminate_job_flows(JobFlowIds=alive)
    _, (third,), _ = call(pipes("works"))
    assert third.metadata["EMR cluster"] not in alive
    assert third.metadata["EMR cluster reused"] is False


def test_a_cluster_of_the_same_name_made_of_other_settings_is_left_alone(pipes, settings_dict):
    _, (first,), _ = call(pipes("works"))
    bigger = copy.deepcopy(settings_dict["cluster"])
    bigger["core"]["count"] = 5
    _, (second,), _ = call(pipes("works", cluster=bigger))
    assert second.metadata["EMR cluster"] != first.metadata["EMR cluster"]


def test_a_cluster_that_goes_between_the_look_and_the_step_is_replaced(pipes, monkeypatch):
    call(pipes("works"))
    client = pipes("works")
    gone, emr = client.target.find(), client.target.emr
    add = emr.add_job_flow_steps

    def add_late(**how):
        if how["JobFlowId"] == gone:
            emr.terminate_job_flows(JobFlowIds=[gone])
            from botocore.exceptions import ClientError

            raise ClientError(
                {"Error": {"Code": "ValidationException", "Message": "A job flow that is shutting down"}}, "x"
            )
        return add(**how)

    monkeypatch.setattr(emr, "add_job_flow_steps", add_late)
    result, (got,), _ = call(client)
    assert result.success
    assert got.metadata["EMR cluster"] != gone


def test_a_cluster_that_ends_under_its_step_is_a_failure(pipes, cloud, emr_module):
    client = pipes("forever")

    def end_it():
        emr_module.wait_for(lambda: cloud.running)
        (job,) = cloud.running
        (cluster,) = [c for c in cloud.clusters.values() for s in c.steps if s.id == job]
        cluster.terminate()

    thread = threading.Thread(target=end_it)
    thread.start()
    text = failure(client)
    thread.join()
    assert "TERMINATED" in text
    for job in list(cloud.running):
        cloud.cancel(job)


def test_what_a_cluster_costs_is_what_was_asked_for(pipes, cloud, settings_dict):
    call(pipes("works"))
    (cluster,) = [c for c in cloud.clusters.values() if c.state == "WAITING" and c.instance_count == 9]
    groups = {g.role: g for g in cluster.instance_groups}
    assert {role: (g.instance_type, g.num_instances, g.market) for role, g in groups.items()} == {
        "MASTER": ("m7i.xlarge", 1, "ON_DEMAND"),
        "CORE": ("m7i.2xlarge", 2, "ON_DEMAND"),
        "TASK": ("m7i.2xlarge", 6, "SPOT"),
    }
    assert cluster.keep_job_flow_alive_when_no_steps
    assert cluster.ec2_subnet_id == "subnet-0a1b2c3d"


def test_an_idle_cluster_is_told_to_end_itself_and_groups_carry_the_bid(pipes, monkeypatch):
    client, asked = pipes("works"), {}
    monkeypatch.setattr(client.target.emr, "run_job_flow", lambda **how: asked.update(how) or {"JobFlowId": "j"})
    assert client.target.start() == "j"
    assert asked["AutoTerminationPolicy"] == {"IdleTimeout": 900}
    task = next(g for g in asked["Instances"]["InstanceGroups"] if g["InstanceRole"] == "TASK")
    assert task["BidPrice"] == "0.25"
    assert all("BidPrice" not in str(g) for g in asked["Instances"]["InstanceGroups"] if g["Market"] == "ON_DEMAND")


@pytest.mark.parametrize("kind", ["cluster", "serverless"])
def test_an_interrupted_run_ends_its_job_and_tells_the_driver(pipes, cloud, emr_module, kind):
    def interrupted(seconds):
        emr_module.wait_for(lambda: cloud.running)
        raise dg.DagsterExecutionInterruptedError

    client = pipes("forever", kind, sleep=interrupted)
    result, _, raised = call(client)
    assert not result.success
    assert isinstance(raised[0], dg.DagsterExecutionInterruptedError)
    emr_module.wait_for(lambda: not cloud.running)
    keys = [k["Key"] for k in cloud.s3.list_objects_v2(Bucket="engines-tests", Prefix="work/emr/pipes/")["Contents"]]
    assert any(key.endswith("/cancel") and result.run_id in key for key in keys)


def test_the_parameters_of_serverless_are_new_each_time_and_carry_what_was_set(
    pipes, cloud, monkeypatch, settings_dict
):
    client = pipes("works", "serverless", spark_conf={"spark.executorEnv.NOTE": "two words"})
    seen, start = [], client.target.emr.start_job_run
    monkeypatch.setattr(
        client.target.emr, "start_job_run", lambda **how: seen.append(copy.deepcopy(how)) or start(**how)
    )
    before = client.settings.model_dump_json()
    assert call(client)[0].success
    assert call(client)[0].success
    first, second = (s["jobDriver"]["sparkSubmit"] for s in seen)
    assert first["sparkSubmitParameters"] == second["sparkSubmitParameters"]
    assert "'spark.executorEnv.NOTE=two words'" in first["sparkSubmitParameters"]
    assert first["entryPointArguments"] != second["entryPointArguments"]
    assert [len(s["entryPointArguments"]) for s in (first, second)] == [4, 4]
    assert seen[0]["executionTimeoutMinutes"] == 120
    assert client.settings.model_dump_json() == before
    assert len({s["applicationId"] for s in seen}) == 1


def test_the_step_carries_its_session_as_arguments_and_one_attempt_of_the_driver(pipes, cloud):
    call(pipes("works"))
    command = cloud.commands[-1]
    assert "--dagster-pipes-context" in command
    assert "spark.yarn.maxAppAttempts=1" in command
    assert {f"spark.{who}.AWS_DEFAULT_REGION=us-west-2" for who in ("executorEnv", "yarn.appMasterEnv")} <= set(command)
    assert f"{'s3://engines-tests/code/lens-assets-1.tar.gz'}#environment" in command
    assert not any("DAGSTER_PIPES" in word for word in command)
    assert max(map(len, command)) < 1000  # the tiles are in an object, not in the arguments


# --- the driver ------------------------------------------------------------------------------------------------------


def test_the_driver_without_a_session_is_an_error_and_no_empty_success():
    done = subprocess.run([sys.executable, spark_main.__file__], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "without a Dagster Pipes session" in done.stderr


def test_the_driver_refuses_to_run_other_code_than_the_orchestrator():
    with pytest.raises(RuntimeError, match=r"other code than the orchestrator .* run deploy/pack-venv\.sh"):
        spark_main.make({"code": "0123", "asset": "sweeps"}, print)


WATCHED = """
import sys, time
sys.path.insert(0, {folder!r})
from lens_assets.remote import spark_main
class S3:
    def head_object(self, Bucket, Key):
        import os
        if not os.path.exists({flag!r}): raise KeyError(Key)
spark_main.watch(S3(), ("b", "k"), {seconds}, every=0.05)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("seconds", "says"), [(3600, "it was cancelled"), (0.2, "its time is up")])
def test_the_driver_ends_when_it_is_cancelled_or_its_time_is_up_even_when_nobody_ends_it(tmp_path, seconds, says):
    flag = tmp_path / "cancel"
    program = WATCHED.format(folder=str(Path(spark_main.__file__).parents[2]), flag=str(flag), seconds=seconds)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        assert process.stdout.readline() == "ready\n"
        if seconds > 1:
            assert process.poll() is None
            flag.touch()
        _, errors = process.communicate(timeout=20)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
    assert process.returncode == spark_main.GONE
    assert says in errors

"""HDFS and YARN on this machine: their four daemons in one Java process, on loopback alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyspark
from py4j.java_gateway import JavaGateway, JavaObject, JavaPackage, JVMView

from tests.support.paths import ROOT

_JARS = Path(pyspark.__file__).parent / "jars"
_JAVA = ["-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
_JAVA += ["--add-opens=java.base/java.lang=ALL-UNNAMED"]
_SETTINGS = {
    "yarn.resourcemanager.scheduler.class": (
        "org.apache.hadoop.yarn.server.resourcemanager.scheduler.fifo.FifoScheduler"
    ),
    # Else a container is as large as 1 GiB, and the node has 4.
    "yarn.scheduler.minimum-allocation-mb": "128",
    "yarn.nodemanager.vmem-check-enabled": "false",
    "yarn.nodemanager.pmem-check-enabled": "false",
    "yarn.nodemanager.disk-health-checker.enable": "false",
}


class HadoopCluster:
    """A cluster of one node.

    Attributes:
        conf: A folder for HADOOP_CONF_DIR, in which the cluster's HDFS is the default.
        hdfs: The address of its HDFS.
    """

    def __init__(self, conf: Path, hadoop: JavaPackage, settings: JavaObject) -> None:
        self.conf = conf
        self._hadoop = hadoop
        self._files = hadoop.fs.FileSystem.get(settings)
        self.hdfs = self._files.getUri().toString()

    def upload(self, source: Path, target: str) -> None:
        """Copy a file or a folder to HDFS."""
        self._files.copyFromLocalFile(self._path(source), self._path(target))

    def list(self, folder: str) -> list[str]:
        """The names of what is in a folder of HDFS."""
        return [each.getPath().getName() for each in self._files.listStatus(self._path(folder))]

    def _path(self, path: Path | str) -> JavaObject:
        return self._hadoop.fs.Path(f"file://{path}" if isinstance(path, Path) else path)


@contextmanager
def hadoop_cluster(folder: Path) -> Iterator[HadoopCluster]:
    """Run a cluster in a folder until the block ends."""
    jars = sorted((ROOT / ".jars" / "hadoop").glob("*.jar"))
    conf = folder / "conf"
    conf.mkdir(parents=True)
    with (folder / "log").open("w", encoding="utf-8") as log:
        gateway = JavaGateway.launch_gateway(
            classpath=os.pathsep.join([f"{_JARS}/*", *map(str, jars)]),
            javaopts=[*_JAVA, f"-Djava.io.tmpdir={folder}"],
            java_path=None,  # That of JAVA_HOME.
            redirect_stdout=log,
            redirect_stderr=log,
            die_on_exit=True,
            cwd=str(folder),
        )
        try:
            yield _start(gateway.jvm, folder, conf)
        finally:
            gateway.shutdown(raise_exception=False)
            gateway.java_process.stdin.close()
            gateway.java_process.kill()
            gateway.java_process.wait()


def _start(jvm: JVMView, folder: Path, conf: Path) -> HadoopCluster:
    hadoop = jvm.org.apache.hadoop
    settings = hadoop.conf.Configuration()
    for name, value in _SETTINGS.items():
        settings.set(name, value)
    settings.set("hdfs.minidfs.basedir", str(folder / "hdfs"))
    hadoop.hdfs.MiniDFSCluster.Builder(settings).build()
    yarn = hadoop.yarn.server.MiniYARNCluster("yarn", 1, 1, 1)
    yarn.init(settings)
    yarn.start()
    # The minicluster's own is in none of Spark's jars.
    settings = yarn.getConfig()
    settings.set(
        "net.topology.node.switch.mapping.impl", "org.apache.hadoop.net.ScriptBasedMapping"
    )
    for name in ("core-site.xml", "yarn-site.xml"):
        file = jvm.java.io.FileOutputStream(str(conf / name))
        settings.writeXml(file)
        file.close()
    return HadoopCluster(conf, hadoop, settings)

"""Embed a folder of photos with the documented pandas UDF, as a Spark application of its own.

.venv/bin/python -m benchmarks.peer_programs.pandas_udf PHOTOS BACKBONE OUTPUT [--openvino]
"""

from benchmarks.peer_programs.arguments import parse_arguments
from benchmarks.udf_pattern import UdfPattern
from jobs.command.session import start_session

__all__: list[str] = []


def main() -> None:
    """Run the program."""
    given = parse_arguments()
    pattern = UdfPattern(start_session("pandas_udf"), given.backbone, openvino=given.openvino)
    pattern.seconds(given.photos, given.output)


if __name__ == "__main__":
    main()

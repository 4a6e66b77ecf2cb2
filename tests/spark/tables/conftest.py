"""A namespace of its own for each test, in a catalog of Iceberg and in one of Delta."""

import uuid
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from schemas.categories import check_categories
from scripts.object_store import ObjectStore, object_store
from tests.support.manifest_rows import DS, Rows


class Lake(NamedTuple):
    """A namespace of a catalog."""

    spark: SparkSession
    namespace: str
    using: str

    def flag(self, name: str) -> str:
        return f"table:{self.namespace}.{name}"

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement, in which `{name}` is the namespace's table of this name."""
        for word in ("categories", "embeddings", "manifest", "other"):
            statement = statement.replace(f"{{{word}}}", f"{self.namespace}.{word}")
        return [tuple(row) for row in self.spark.sql(statement).collect()]

    def write_manifest(
        self, rows: Rows, ds: str = DS, kind: str = "date", name: str = "manifest"
    ) -> str:
        """Add a day to the table of the manifest; returns the flag."""
        schema = (
            "listing_id string, image_index int, image_uri string, image_bytes binary, "
            "image_key string, category_id string, split string"
        )
        names = [column.split()[0] for column in schema.split(", ")]
        frame = self.spark.createDataFrame([tuple(map(row.get, names)) for row in rows], schema)
        frame.selectExpr("*", f"cast('{ds}' as {kind}) as ds").createOrReplaceTempView("rows")
        self.sql(
            f"CREATE TABLE IF NOT EXISTS {{{name}}} ({schema}, ds {kind}) "
            f"USING {self.using} PARTITIONED BY (ds)"
        )
        self.sql(f"INSERT INTO {{{name}}} SELECT {', '.join(names)}, ds FROM rows")
        return self.flag(name)

    def categories(self, ds: str = DS) -> pa.Table:
        """What readers see of a day, checked, by listing."""
        rows = self.spark.table(f"{self.namespace}.categories").where(f"ds = '{ds}'").drop("ds")
        table = rows.toArrow().sort_by("listing_id")
        check_categories(table, "categories")
        return table


@pytest.fixture(scope="session")
def catalogs(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> None:
    spark.conf.set("spark.sql.catalog.lake", "org.apache.iceberg.spark.SparkCatalog")
    spark.conf.set("spark.sql.catalog.lake.type", "hadoop")
    warehouse = tmp_path_factory.mktemp("lake").as_uri()
    spark.conf.set("spark.sql.catalog.lake.warehouse", warehouse)


iceberg_alone = pytest.mark.parametrize("lake", ["iceberg"], indirect=True)


@pytest.fixture(params=["iceberg", "delta"])
def lake(
    request: pytest.FixtureRequest,
    spark: SparkSession,
    catalogs: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lake]:
    catalog = {"iceberg": "lake", "delta": "spark_catalog"}[request.param]
    lake = Lake(spark, f"{catalog}.n{uuid.uuid4().hex[:8]}", request.param)
    place = f" LOCATION '{tmp_path_factory.mktemp('delta').as_uri()}'" * (catalog != "lake")
    spark.sql(f"CREATE NAMESPACE {lake.namespace}{place}")
    yield lake
    for row in spark.sql(f"SHOW TABLES IN {lake.namespace}").where("not isTemporary").collect():
        spark.sql(f"DROP TABLE {lake.namespace}.{row['tableName']}")
    spark.sql(f"DROP NAMESPACE {lake.namespace}")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """An S3 server with a catalog of Iceberg's."""
    with object_store(tmp_path_factory.mktemp("s3")) as store:
        yield store


@pytest.fixture
def s3_lake(spark: SparkSession, store: ObjectStore) -> Lake:
    """A namespace of the server's catalog."""
    use_store(spark, store, "s3")
    lake = Lake(spark, f"s3.n{uuid.uuid4().hex[:8]}", "iceberg")
    spark.sql(f"CREATE NAMESPACE {lake.namespace}")
    return lake


def use_store(spark: SparkSession, store: ObjectStore, catalog: str) -> None:
    """Have the session's addresses `s3a://`, and a catalog of it, be those of a server."""
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    for name, value in store.spark_settings(catalog).items():
        if name.startswith("spark.hadoop."):
            hadoop.set(name.removeprefix("spark.hadoop."), value)
        elif name.startswith("spark.sql."):
            spark.conf.set(name, value)
    # Another store may have been at these addresses.
    spark._jvm.org.apache.hadoop.fs.FileSystem.closeAll()

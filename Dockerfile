# The image of drivers and executors on Kubernetes, from what `make package` has built:
#
#     docker build --tag seer-categories .
#
# The base image has Spark, in the version of requirements/lock.txt, and Java, but no Python.
ARG SPARK_IMAGE=spark:4.1.4-scala2.13-java17-ubuntu
FROM ${SPARK_IMAGE}

# An archive that is added is unpacked.
ADD --chown=root:root dist/seer-environment.tar.gz /opt/seer/environment/
COPY dist/seer-categories.zip /opt/seer/
COPY jobs/*.py /opt/seer/jobs/

ENV PYSPARK_PYTHON=/opt/seer/environment/bin/python

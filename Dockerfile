# The course in an image: to check, without network, what people hand in (README, "For teachers").
FROM python:3.12-slim
WORKDIR /course
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e .

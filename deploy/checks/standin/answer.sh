#!/bin/sh
# Answers one HTTP request on standard input: accepts OTLP on the paths of Prometheus and Pyroscope, reports that it is healthy, and logs each request.
read -r method path _
length=0
while read -r header; do
    header=$(echo "$header" | tr -d '\r')
    case $header in
    "") break ;;
    [Cc]ontent-[Ll]ength:*) length=${header#*: } ;;
    esac
done
head -c "$length" >/dev/null
case $path in
/-/ready | /api/health | /ready) status="200 OK" ;;
/api/v1/otlp/v1/metrics | /v1development/profiles) status="200 OK"; echo "$method $path $length bytes" >&2 ;;
*) status="404 Not Found" ;;
esac
printf 'HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' "$status"

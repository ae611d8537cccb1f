#!/bin/sh
exec wget -q -O /dev/null http://localhost:4040/ready

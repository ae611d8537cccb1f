# To be sourced. Fetches the programs that the checks run into target/deploy/ and installs nothing (Debian; about 25 s, once): PROMETHEUS,
# PROMTOOL, COMPOSE, VICTORIA, PYTHON. Set a variable yourself to use your own program.

tools=$PWD/target/deploy
mkdir -p "$tools"

# unpack SUITE PACKAGE...: unpacks packages of another Debian suite, from the mirror that this system uses.
unpack() {
    local suite=$1 place=$tools/$1
    shift
    mkdir -p "$place"/{etc,lists,archives/partial}
    local mirror
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' | head -1)
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' "$mirror" "$suite" >"$place/etc/$suite.sources"
    local apt=(apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$place/etc" -o "Dir::State::lists=$place/lists"
        -o "Dir::Cache=$place" -o APT::Sandbox::User=root)
    "${apt[@]}" update
    (cd "$place" && "${apt[@]}" download "$@" && for package in "$@"; do dpkg-deb -x "$package"_*.deb root && rm "$package"_*.deb; done)
}

apt_install() {
    dpkg -s "$@" >/dev/null 2>&1 || { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null; }
}

# The next Debian has Prometheus 3 and Compose 2; the stable one has VictoriaMetrics.
: "${PROMETHEUS:=$tools/forky/root/usr/bin/prometheus}"
: "${PROMTOOL:=$tools/forky/root/usr/bin/promtool}" "${COMPOSE:=$tools/forky/root/usr/libexec/docker/cli-plugins/docker-compose}"
: "${VICTORIA:=$tools/trixie/root/usr/bin/victoria-metrics}" "${PYTHON:=$tools/python/bin/python}"
: "${OTELCOL:=../shared/tools/otelcol}"
export PROMETHEUS PROMTOOL COMPOSE VICTORIA PYTHON OTELCOL

[ -x "$PROMETHEUS" ] && [ -x "$PROMTOOL" ] && [ -x "$COMPOSE" ] || unpack forky prometheus promtool docker-compose
[ -x "$VICTORIA" ] || unpack trixie victoria-metrics
[ -x "$PYTHON" ] || { python3 -m venv "$tools/python" && "$PYTHON" -m pip install -q pyyaml kubernetes-validate matplotlib; }

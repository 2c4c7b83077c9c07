"""The tools that install packages: how each is told to, and which of its flags a value follows. A table, no code."""

from dataclasses import dataclass
from typing import Final

from conclave.safety.output.packages.ecosystems import Ecosystem

SEP: Final = r"[\s\"',\\]++"  # lists in Python and Dockerfiles have quotes and commas between the words
FLAGS: Final = rf"(?:{SEP}-[\w./:=@-]*+(?:{SEP}[\w./:@=][\w./:@=-]*+)?){{0,3}}?"


@dataclass(frozen=True, slots=True)
class Tool:
    """How a tool is told to install. `one`: only the first word is a package. `valued`: flags that a value follows.

    `naming`: flags whose value is a package; `by_flag`: nothing else is one. `creates`: `vite` stands for create-vite.
    """

    ecosystem: Ecosystem
    words: str
    valued: str = ""
    naming: str = ""
    one: bool = False
    creates: bool = False
    by_flag: bool = False


PIP: Final = (
    "-r --requirement -c --constraint --constraints -i --index-url --extra-index-url --index --default-index -f "
    "--find-links -t --target --trusted-host --platform --python-version --python --implementation --abi --root "
    "--prefix --src --proxy --timeout --retries --cert --client-cert --cache-dir --log --progress-bar "
    "--config-settings -C --global-option --install-option --build-option --no-binary --only-binary --report "
    "--upgrade-strategy --group -G -e --editable --source --optional --extra -E --extras --suffix --pip-args "
    "--exists-action --dest --directory --project --tag --branch --rev --with-requirements -P --upgrade-package -p"
)
PIPX: Final = "--python --suffix --index-url -i --pip-args"  # its -f forces
NPM: Final = (
    "--registry --prefix -C --dir --workspace --filter -F --tag --loglevel --cache --userconfig --before --omit "
    "--include --otp --save-prefix --cwd --network-timeout --mutex --store-dir --modules-folder -c --call --template"
)
DOCKER: Final = (
    "-p -v -e -u -w -h -m -l --name --network --net --volume --env --publish --mount --user --workdir --entrypoint "
    "--env-file --platform --restart --gpus --memory --cpus --hostname --label --link --ip --add-host --device "
    "--ulimit --shm-size --security-opt --cap-add --cap-drop --log-driver --log-opt --expose --pull --ipc --pid"
)
CONDA: Final = "-c --channel -n --name -p --prefix --file -f"
_NPM_ADD: Final = r"(?:i|in|ins|inst|insta|instal|install|isnt|isnta|isntal|isntall|add|it|install-test|update|up)"
TOOLS: Final = (
    Tool(Ecosystem.PYPI, rf"pip(?:[23](?:\.\d{{1,2}})?)?(?:\.exe)?{FLAGS}{SEP}(?:install|download|wheel)", f"{PIP} -d"),
    Tool(Ecosystem.PYPI, rf"uv{FLAGS}{SEP}(?:pip{SEP}install|add|tool{SEP}install)", PIP, "--with"),
    Tool(Ecosystem.PYPI, rf"(?:uvx|uv{FLAGS}{SEP}tool{SEP}run)", PIP, "--from --with", one=True),
    Tool(Ecosystem.PYPI, rf"uv{FLAGS}{SEP}run(?={SEP}-)", PIP, "--with", by_flag=True),
    Tool(Ecosystem.PYPI, rf"pipx{FLAGS}{SEP}install", PIPX, "--preinstall"),
    Tool(Ecosystem.PYPI, rf"pipx{FLAGS}{SEP}run", PIPX, "--spec", one=True),
    Tool(Ecosystem.PYPI, rf"pipx{FLAGS}{SEP}inject{SEP}[\w.-]+", PIPX),
    Tool(Ecosystem.PYPI, rf"(?:poetry|pdm|rye|pipenv|hatch){FLAGS}{SEP}(?:self{SEP})?(?:add|install)", PIP),
    Tool(Ecosystem.PYPI, r"easy_install", PIP),
    Tool(Ecosystem.NPM, rf"npm(?:\.cmd)?{FLAGS}{SEP}{_NPM_ADD}", f"{NPM} -w"),
    Tool(Ecosystem.NPM, rf"pnpm{FLAGS}{SEP}(?:add|i|install|update|up)", NPM),
    Tool(Ecosystem.NPM, rf"yarn{FLAGS}{SEP}(?:global{SEP}|workspace{SEP}[\w./@-]+{SEP})?(?:add|up|upgrade)", NPM),
    Tool(Ecosystem.NPM, rf"bun{FLAGS}{SEP}(?:add|a|i|install)", NPM),
    Tool(Ecosystem.NPM, rf"deno{FLAGS}{SEP}(?:add|install)", NPM),
    Tool(
        Ecosystem.NPM,
        rf"(?:npx|bunx|pnpx|(?:npm{FLAGS}{SEP}(?:exec|x)|(?:pnpm|yarn){FLAGS}{SEP}dlx|bun{SEP}x))",
        NPM,
        "-p --package",
        one=True,
    ),
    Tool(
        Ecosystem.NPM,
        rf"(?:npm{FLAGS}{SEP}(?:create|init|innit)|(?:pnpm|yarn|bun){FLAGS}{SEP}create)",
        NPM,
        one=True,
        creates=True,
    ),
    Tool(Ecosystem.GO, rf"go{SEP}(?:get|install|run)", "-C -mod -modfile -o -p -tags -ldflags -gcflags -exec"),
    Tool(Ecosystem.RUBYGEMS, rf"gem{SEP}(?:install|i|fetch)", "-v --version -s --source --install-dir -n --bindir -P"),
    Tool(Ecosystem.RUBYGEMS, rf"bundle{SEP}add", "-v --version -s --source -g --group --git --branch --github"),
    Tool(
        Ecosystem.CARGO,
        rf"cargo{SEP}(?:\+[\w.-]+{SEP})?(?:add|install|binstall)",
        "--version --vers --git --branch --tag --rev --path --registry --features -F --manifest-path -p --package "
        "--target --root --rename --index -j --jobs",
    ),
    Tool(Ecosystem.COMPOSER, rf"composer{FLAGS}{SEP}(?:global{SEP})?(?:require|create-project)", "-d --working-dir"),
    Tool(
        Ecosystem.NUGET,
        rf"(?:dotnet{SEP}(?:add(?:{SEP}[\w./\\-]+)?{SEP}package|tool{SEP}install)|nuget{SEP}install|install-package)",
        "--version -v --source -s --framework -f -version -source -projectname --tool-path --add-source",
        "-id",
        one=True,
    ),
    Tool(Ecosystem.DOCKER, rf"(?:docker|podman|nerdctl){SEP}(?:image{SEP})?(?:pull|run|create)", DOCKER, one=True),
    Tool(Ecosystem.BREW, rf"brew{SEP}(?:install|cask{SEP}install|reinstall)", ""),
    Tool(Ecosystem.APT, rf"(?:apt|apt-get|aptitude){FLAGS}{SEP}install", "-t --target-release -o --option"),
    Tool(Ecosystem.CONDA, rf"(?:conda|mamba|micromamba|pixi){FLAGS}{SEP}(?:install|create|add)", CONDA),
)
PROGRAMS: Final = (  # as the words of the tools begin
    *(
        "pip",
        "uv",
        "poetry",
        "pdm",
        "rye",
        "hatch",
        "easy_install",
        "npm",
        "pnpm",
        "yarn",
        "bun",
        "deno",
        "npx",
        "pnpx",
    ),
    *("go", "gem", "cargo", "composer", "dotnet", "nuget", "install-package", "docker", "podman", "nerdctl", "brew"),
    *("apt", "conda", "mamba", "micromamba", "pixi"),
)
VALUED: Final = tuple(frozenset(tool.valued.split()) for tool in TOOLS)
NAMING: Final = tuple(frozenset(tool.naming.split()) for tool in TOOLS)

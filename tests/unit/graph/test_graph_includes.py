"""Requirements files that include each other, in numbers and depths that only a hostile branch has."""

from mlstack.graph.requirements import resolve_requirements


def test_each_file_is_read_once() -> None:
    files = {f"r{n}.txt": f"-r r{n + 1}.txt\n-r ./r{n + 1}.txt\n" for n in range(40)} | {"r40.txt": "a==1\n"}
    read: list[str] = []

    def text_of(file: str) -> str | None:
        read.append(file)
        return files.get(file)

    found = resolve_requirements("r0.txt", text_of)
    assert [package.name for package in found.packages] == ["a"]
    assert sorted(read) == sorted(files)


def test_depth_is_bounded() -> None:
    files = {f"r{n}.txt": f"-r r{n + 1}.txt\n" for n in range(5_000)}
    found = resolve_requirements("r0.txt", files.get)
    assert [problem.code for problem in found.diagnostics] == ["includes-too-deep"]

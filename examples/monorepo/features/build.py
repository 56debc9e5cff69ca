"""Turn raw measurements into the features that every model of this repository learns from: features/table.csv."""

import csv
from pathlib import Path

SOURCE = Path("data/diabetes.csv")
TABLE = Path("features/table.csv")


def main() -> None:
    """Keep the measurements that a practice has at hand, and add the share of HDL in all cholesterol."""
    with SOURCE.open(encoding="utf-8") as source, TABLE.open("w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["bmi", "blood_pressure", "hdl_share", "log_triglycerides", "progression"])
        for row in csv.DictReader(source):
            hdl_share = float(row["hdl"]) / float(row["total_cholesterol"])
            kept = [row["bmi"], row["blood_pressure"], f"{hdl_share:.4f}", row["log_triglycerides"]]
            writer.writerow([*kept, row["progression"]])
    print(f"{TABLE} is written")


if __name__ == "__main__":
    main()

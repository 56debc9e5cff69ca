module mlstack.invalid/tests/engines/pause

go 1.24.0

tool mlstack.invalid/tests/engines/pause

# Cross build for 64-bit Arm with Debian's compiler; tests run through qemu's user mode emulation. Libraries come from
# the arm64 packages that Debian installs beside the machine's own (scripts/setup.sh --aarch64).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static)

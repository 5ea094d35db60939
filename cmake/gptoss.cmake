# Compiler settings and the few functions with which every folder declares its targets.

add_library(gptoss_options INTERFACE)
target_include_directories(gptoss_options INTERFACE ${PROJECT_SOURCE_DIR}/src)
target_compile_options(gptoss_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Werror
  # GCC and clang both contract a*b+c by default in some modes; numerics must not depend on it.
  -ffp-contract=off -fno-math-errno
  # False alarms of g++ 12 on std::string's operator+ (GCC bug 105651).
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
if(GPTOSS_SANITIZE)
  target_compile_options(gptoss_options INTERFACE -fsanitize=${GPTOSS_SANITIZE} -fno-omit-frame-pointer -g1
    -fno-sanitize-recover=all
    # Half the time of compilation; the checks are the same.
    -O1
    # g++ reports false alarms in instrumented code; the release build has warnings as errors.
    -Wno-error)
  target_link_options(gptoss_options INTERFACE -fsanitize=${GPTOSS_SANITIZE})
endif()
if(GPTOSS_BUILD_FUZZERS)
  target_compile_options(gptoss_options INTERFACE -fsanitize=fuzzer-no-link)
endif()
find_program(GPTOSS_CCACHE ccache)
if(GPTOSS_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${GPTOSS_CCACHE})
endif()

# Compiles a target's sources several at a time, when GPTOSS_UNITY says so. A source whose names clash with its
# neighbours' is marked in its folder by gptoss_compile_alone.
function(gptoss_unity target)
  if(GPTOSS_UNITY)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
  endif()
endfunction()
function(gptoss_compile_alone)
  set_source_files_properties(${ARGN} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
endfunction()

# gptoss_library(NAME SOURCES a.cc … DEPS base …): target gptoss_NAME from the current folder.
function(gptoss_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;LINK" ${ARGN})
  add_library(gptoss_${name} STATIC ${ARG_SOURCES})
  gptoss_unity(gptoss_${name})
  target_link_libraries(gptoss_${name} PUBLIC gptoss_options)
  foreach(dep ${ARG_DEPS})
    target_link_libraries(gptoss_${name} PUBLIC gptoss_${dep})
  endforeach()
  target_link_libraries(gptoss_${name} PUBLIC ${ARG_LINK})
endfunction()

# gptoss_test(NAME SOURCES a_test.cc DEPS …): a GoogleTest binary; each becomes one CTest entry.
function(gptoss_test name)
  if(NOT GPTOSS_BUILD_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;LINK;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  gptoss_unity(${name})
  # Tests spend their time in the libraries; optimising them would double the time of their compilation.
  target_compile_options(${name} PRIVATE -O1)
  target_link_libraries(${name} PRIVATE gptoss_options GTest::gtest GTest::gmock GTest::gtest_main)
  foreach(dep ${ARG_DEPS})
    target_link_libraries(${name} PRIVATE gptoss_${dep})
  endforeach()
  target_link_libraries(${name} PRIVATE ${ARG_LINK})
  target_compile_definitions(${name} PRIVATE GPTOSS_TEST_DATA="${PROJECT_SOURCE_DIR}/tests/data")
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "unit;${ARG_LABELS}" TIMEOUT 600)
  # What the sanitizers run: no program, no long tests.
  if(NOT "slow" IN_LIST ARG_LABELS)
    if(NOT TARGET short_unit_tests)
      add_custom_target(short_unit_tests)
    endif()
    add_dependencies(short_unit_tests ${name})
  endif()
endfunction()

# gptoss_fuzzer(NAME SOURCES a_fuzz.cc DEPS …): a libFuzzer binary, built with the `fuzz` preset only.
function(gptoss_fuzzer name)
  if(NOT GPTOSS_BUILD_FUZZERS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;LINK" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE gptoss_options ${ARG_LINK})
  foreach(dep ${ARG_DEPS})
    target_link_libraries(${name} PRIVATE gptoss_${dep})
  endforeach()
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  if(NOT TARGET fuzzers)
    add_custom_target(fuzzers)
  endif()
  add_dependencies(fuzzers ${name})
endfunction()

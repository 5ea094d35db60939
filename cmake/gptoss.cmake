# Compiler settings and the few functions with which every folder declares its targets.

add_library(gptoss_options INTERFACE)
target_include_directories(gptoss_options INTERFACE ${PROJECT_SOURCE_DIR}/src)
set(gptoss_warnings -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Werror)
target_compile_options(gptoss_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:${gptoss_warnings}>
  # GCC and clang both contract a*b+c by default in some modes; numerics must not depend on it.
  $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off$<SEMICOLON>-fno-math-errno>
  # False alarms of g++ 12 on std::string's operator+ (GCC bug 105651).
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-Wno-restrict>)
if(GPTOSS_SANITIZE)
  target_compile_options(gptoss_options INTERFACE -fsanitize=${GPTOSS_SANITIZE} -fno-omit-frame-pointer -g1
    -fno-sanitize-recover=all
    # g++ reports false alarms in instrumented code; the release build has warnings as errors.
    $<$<CXX_COMPILER_ID:GNU>:-Wno-error>)
  target_link_options(gptoss_options INTERFACE -fsanitize=${GPTOSS_SANITIZE})
endif()
if(GPTOSS_BUILD_FUZZERS)
  target_compile_options(gptoss_options INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(GPTOSS_UNITY)
  # A local name may be that of something in a neighbour's anonymous namespace; the preset `clang` knows the difference.
  target_compile_options(gptoss_options INTERFACE $<$<CXX_COMPILER_ID:Clang>:-Wno-shadow>)
endif()
find_program(GPTOSS_CCACHE ccache)
if(GPTOSS_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${GPTOSS_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${GPTOSS_CCACHE})
endif()

# gptoss_sources(OUT NAME SOURCES a.cc … ALONE b.cc …): the sources of target NAME. With GPTOSS_UNITY those of SOURCES are
# included eight at a time by sources that are made here; ALONE are those whose names clash with their neighbours' or that
# have properties of their own. Includes are relative to src/, so that a compiler cache knows them in every clone.
function(gptoss_sources out name)
  cmake_parse_arguments(ARG "" "" "SOURCES;ALONE" ${ARGN})
  if(NOT GPTOSS_UNITY)
    set(${out} ${ARG_SOURCES} ${ARG_ALONE} PARENT_SCOPE)
    return()
  endif()
  set(result ${ARG_ALONE})
  list(LENGTH ARG_SOURCES count)
  set(first 0)
  while(first LESS count)
    list(SUBLIST ARG_SOURCES ${first} 8 batch)
    set(text "")
    foreach(source ${batch})
      file(RELATIVE_PATH path ${PROJECT_SOURCE_DIR}/src ${CMAKE_CURRENT_SOURCE_DIR}/${source})
      string(APPEND text "#include \"${path}\"\n")
    endforeach()
    set(file ${CMAKE_CURRENT_BINARY_DIR}/${name}_${first}.cc)
    file(CONFIGURE OUTPUT ${file} CONTENT "${text}" @ONLY)
    list(APPEND result ${file})
    math(EXPR first "${first} + 8")
  endwhile()
  set(${out} ${result} PARENT_SCOPE)
endfunction()

# How much sanitized builds optimise TARGET: -O1 takes half the time of compilation of -O2, -O0 a fifth, which is for
# what tests spend little time in. The checks are the same.
function(gptoss_optimise_sanitized target level)
  if(GPTOSS_SANITIZE)
    target_compile_options(${target} PRIVATE "SHELL:${level}")  # CMake leaves out an option that was there before
  endif()
endfunction()

# gptoss_library(NAME SOURCES a.cc … [ALONE b.cc …] DEPS base …): target gptoss_NAME from the current folder.
function(gptoss_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;ALONE;DEPS;LINK" ${ARGN})
  gptoss_sources(sources ${name} SOURCES ${ARG_SOURCES} ALONE ${ARG_ALONE})
  add_library(gptoss_${name} STATIC ${sources})
  target_link_libraries(gptoss_${name} PUBLIC gptoss_options)
  foreach(dep ${ARG_DEPS})
    target_link_libraries(gptoss_${name} PUBLIC gptoss_${dep})
  endforeach()
  target_link_libraries(gptoss_${name} PUBLIC ${ARG_LINK})
  if(name MATCHES "^(checkpoint|hub|server.*|training)$")
    gptoss_optimise_sanitized(gptoss_${name} -O0)
  else()
    gptoss_optimise_sanitized(gptoss_${name} -O1)
  endif()
endfunction()

# gptoss_test(NAME SOURCES a_test.cc DEPS … [SHARDS N]): a GoogleTest binary; each becomes one CTest entry, or N that run
# a part of its tests each.
function(gptoss_test name)
  if(NOT GPTOSS_BUILD_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "SHARDS" "SOURCES;ALONE;DEPS;LINK;LABELS" ${ARGN})
  gptoss_sources(sources ${name} SOURCES ${ARG_SOURCES} ALONE ${ARG_ALONE})
  add_executable(${name} ${sources})
  # Tests spend their time in the libraries; optimising them would double the time of their compilation.
  target_compile_options(${name} PRIVATE -O1)
  gptoss_optimise_sanitized(${name} -O0)
  target_link_libraries(${name} PRIVATE gptoss_options GTest::gtest GTest::gmock GTest::gtest_main)
  foreach(dep ${ARG_DEPS})
    target_link_libraries(${name} PRIVATE gptoss_${dep})
  endforeach()
  target_link_libraries(${name} PRIVATE ${ARG_LINK})
  target_compile_definitions(${name} PRIVATE GPTOSS_TEST_DATA="${PROJECT_SOURCE_DIR}/tests/data")
  if(ARG_SHARDS)
    foreach(shard RANGE 1 ${ARG_SHARDS})
      math(EXPR index "${shard} - 1")
      add_test(NAME ${name}_${shard} COMMAND ${name})
      set_tests_properties(${name}_${shard} PROPERTIES LABELS "unit;${ARG_LABELS}" TIMEOUT 600
        ENVIRONMENT "GTEST_TOTAL_SHARDS=${ARG_SHARDS};GTEST_SHARD_INDEX=${index}")
    endforeach()
  else()
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES LABELS "unit;${ARG_LABELS}" TIMEOUT 600)
  endif()
  # What the sanitizers run: no program, no long tests.
  if(NOT "slow" IN_LIST ARG_LABELS)
    if(NOT TARGET short_unit_tests)
      add_custom_target(short_unit_tests)
    endif()
    add_dependencies(short_unit_tests ${name})
  endif()
endfunction()

# gptoss_backward_test(NAME LABELS…): the same test with the last thread first (backends/cuda/emulator/emulator.h).
function(gptoss_backward_test name)
  if(GPTOSS_BUILD_TESTS)
    add_test(NAME backward_${name} COMMAND ${name})
    set_tests_properties(backward_${name} PROPERTIES LABELS "unit;${ARGN}" TIMEOUT 600
      ENVIRONMENT "GPTOSS_EMULATOR_BACKWARD=1")
  endif()
endfunction()

# gptoss_fuzzer(NAME SOURCES a_fuzz.cc DEPS …): a libFuzzer binary, built with the presets `asan` and `fuzz`.
function(gptoss_fuzzer name)
  if(NOT GPTOSS_BUILD_FUZZERS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;LINK" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  gptoss_optimise_sanitized(${name} -O1)
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

# Compiler settings of all our own code, and gov_library(): one folder of src/ as one library with its dependencies.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

find_program(CCACHE ccache)
if(CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

find_package(Threads REQUIRED)
find_package(fmt REQUIRED)

# nvcc's own passes hand generated code to the host compiler, on which the stricter warnings make no sense.
# nvcc cannot evaluate the checks of format strings that fmt makes at compile time.
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wconversion;-Wno-sign-conversion>"
                    "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall;--expt-relaxed-constexpr;-lineinfo;-DFMT_CONSTEVAL=;-DFMT_USE_CONSTEXPR=1>")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)  # a false alarm of GCC 12 on every "literal" + std::string (GCC bug 105329)
endif()
if(GOV_WERROR)
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Werror>" "$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-Xcompiler=-Werror>")
endif()
if(GOV_SANITIZE)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${GOV_SANITIZE}> $<$<COMPILE_LANGUAGE:CXX>:-fno-omit-frame-pointer> -g1)
  add_link_options(-fsanitize=${GOV_SANITIZE})
  if(GOV_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize-recover=all)
  endif()
endif()

if(GOV_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)  # coverage counters in the library's code, which libFuzzer follows
endif()

# gov_library(<folder> SOURCES a.cc ... [DEPENDS other folders] [LINK external libraries])
function(gov_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS;LINK" ${ARGN})
  add_library(gov_${name} STATIC ${ARG_SOURCES})
  target_include_directories(gov_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
  list(TRANSFORM ARG_DEPENDS PREPEND gov_)
  target_link_libraries(gov_${name} PUBLIC ${ARG_DEPENDS} PRIVATE ${ARG_LINK})
  set_property(GLOBAL APPEND PROPERTY GOV_LIBRARIES gov_${name})
endfunction()

# gov_test(<name> SOURCES a_test.cc ... LINK gov_text ...): one GoogleTest program, every TEST a ctest case. ./test wants
# every tests/<folder> to have its <folder>_test.
function(gov_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_definitions(${name} PRIVATE GOV_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
                             GOV_UNPACKED_DIR="${PROJECT_BINARY_DIR}")  # where tests/CMakeLists.txt unpacks large data
  target_link_libraries(${name} PRIVATE ${ARG_LINK} GTest::gtest_main)
  # Absurd sizes are refused by the allocator, as they are without sanitizers, and the tests see the error.
  set(environment ASAN_OPTIONS=allocator_may_return_null=1)
  if(GOV_SANITIZE MATCHES "thread")
    set(environment TSAN_OPTIONS=allocator_may_return_null=1)
  endif()
  # Tests that measure time run with nothing beside them.
  set(timed "*Time.*:*Bomb*")
  gtest_discover_tests(${name} TEST_PREFIX "${name}." TEST_FILTER "-${timed}" DISCOVERY_TIMEOUT 60
                       PROPERTIES TIMEOUT 900 ENVIRONMENT ${environment})
  gtest_discover_tests(${name} TEST_PREFIX "${name}." TEST_FILTER "${timed}" DISCOVERY_TIMEOUT 60
                       PROPERTIES TIMEOUT 900 ENVIRONMENT ${environment} RUN_SERIAL TRUE)
endfunction()

# gov_fuzz(<name> SOURCES fuzz_x.cc LINK gov_io ...): a libFuzzer target named fuzz_<name>. Its ctest case runs the stored
# corpus, tests/fuzz/corpus/<name>, then new inputs for GOV_FUZZ_SECONDS; what it finds is kept in the build folder.
function(gov_fuzz name)
  if(NOT GOV_FUZZ)
    return()
  endif()
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_executable(fuzz_${name} ${ARG_SOURCES})
  target_link_libraries(fuzz_${name} PRIVATE ${ARG_LINK})
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  set(found ${PROJECT_BINARY_DIR}/corpus/${name})
  file(MAKE_DIRECTORY ${found})
  set(stored ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
  if(NOT IS_DIRECTORY ${stored})
    set(stored "")
  endif()
  math(EXPR limit "${GOV_FUZZ_SECONDS} + 600")
  add_test(NAME fuzz_${name}
           COMMAND fuzz_${name} -max_total_time=${GOV_FUZZ_SECONDS} -timeout=20 -rss_limit_mb=2048 -verbosity=1
                   -print_final_stats=1 -artifact_prefix=${PROJECT_BINARY_DIR}/ ${found} ${stored})
  set_tests_properties(fuzz_${name} PROPERTIES TIMEOUT ${limit})
endfunction()

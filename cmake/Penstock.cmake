# How every folder of the tree becomes targets.
#
#   penstock_module(NAME [DEPENDS module...] [LIBS library...])
#
# makes, from the sources beside the calling CMakeLists.txt:
#   penstock_NAME    a static library of *.cpp
#   NAME_test        one GoogleTest binary of *_test.cpp
#   NAME_*_fuzz      a libFuzzer binary for each *_fuzz.cpp (only where PENSTOCK_SANITIZE has address)

option(PENSTOCK_SANITIZE "Sanitizers to build with, comma-separated" "")
option(PENSTOCK_COVERAGE "Instrument for llvm-cov" OFF)
option(PENSTOCK_TESTS "Build tests and fuzzers" ON)

add_library(penstock_options INTERFACE)
target_compile_options(penstock_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion
  -Wnon-virtual-dtor -Wold-style-cast -Werror -fno-omit-frame-pointer)
target_include_directories(penstock_options INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_link_options(penstock_options INTERFACE -fuse-ld=lld)
target_compile_definitions(penstock_options INTERFACE PENSTOCK_VERSION="${PROJECT_VERSION}")
if(PENSTOCK_SANITIZE)
  add_compile_options(-fsanitize=${PENSTOCK_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${PENSTOCK_SANITIZE})
endif()
if(PENSTOCK_COVERAGE)
  add_compile_options(-fprofile-instr-generate -fcoverage-mapping)
  add_link_options(-fprofile-instr-generate)
endif()
if(CMAKE_BUILD_TYPE STREQUAL "Release")
  target_compile_options(penstock_options INTERFACE -march=x86-64-v2)
  # A call is a dozen nested coroutine frames; Asio's default of two kept blocks would send the others to malloc.
  target_compile_definitions(penstock_options INTERFACE BOOST_ASIO_RECYCLING_ALLOCATOR_CACHE_SIZE=16)
endif()

add_custom_target(all_tests)
add_custom_target(fuzzers)

# Standard headers, parsed once for each kind of target.
add_library(penstock_pch OBJECT ${CMAKE_SOURCE_DIR}/cmake/pch.cpp)
target_link_libraries(penstock_pch PRIVATE penstock_options)
target_precompile_headers(penstock_pch PRIVATE ${CMAKE_SOURCE_DIR}/cmake/pch.hpp)
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:SHELL:-Xclang -fno-pch-timestamp>")  # else ccache cannot reuse it

function(penstock_module name)
  cmake_parse_arguments(arg "" "" "DEPENDS;LIBS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS *.cpp)
  if(name STREQUAL "store")
    list(FILTER sources EXCLUDE REGEX "/store/[a-z]+/")
  endif()
  set(tests ${sources})
  set(fuzzers ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cpp$")
  list(FILTER fuzzers INCLUDE REGEX "_fuzz\\.cpp$")
  list(FILTER sources EXCLUDE REGEX "_(test|fuzz|bench)\\.cpp$")
  set(modules ${arg_DEPENDS})
  list(TRANSFORM modules PREPEND penstock_)

  if(sources)
    add_library(penstock_${name} STATIC ${sources})
    target_link_libraries(penstock_${name} PUBLIC penstock_options ${modules} ${arg_LIBS})
    target_precompile_headers(penstock_${name} REUSE_FROM penstock_pch)
  else()
    add_library(penstock_${name} INTERFACE)
    target_link_libraries(penstock_${name} INTERFACE penstock_options ${modules} ${arg_LIBS})
  endif()

  if(PENSTOCK_TESTS AND tests)
    add_executable(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE penstock_${name} GTest::gtest_main GTest::gmock)
    target_compile_definitions(${name}_test PRIVATE PENSTOCK_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    target_precompile_headers(${name}_test REUSE_FROM penstock_pch)
    add_dependencies(all_tests ${name}_test)
  endif()
  if(PENSTOCK_TESTS AND PENSTOCK_SANITIZE MATCHES "address")
    if(fuzzers)
      # So that the fuzzer sees which branches an input reached.
      target_compile_options(penstock_${name} PRIVATE -fsanitize=fuzzer-no-link)
      set_target_properties(penstock_${name} PROPERTIES DISABLE_PRECOMPILE_HEADERS ON)  # they are made without it
    endif()
    foreach(fuzzer ${fuzzers})
      get_filename_component(target ${fuzzer} NAME_WE)
      add_executable(${target} ${fuzzer})
      target_link_libraries(${target} PRIVATE penstock_${name})
      target_link_options(${target} PRIVATE -fsanitize=fuzzer)
      target_compile_options(${target} PRIVATE -fsanitize=fuzzer)
      add_dependencies(fuzzers ${target})
    endforeach()
  endif()
endfunction()

# The installed product: one library made of the objects of all folders, its headers, a CMake package, the program, nano.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# The command line and the server are clients of the library, not parts of it.
get_property(folders GLOBAL PROPERTY GOV_LIBRARIES)
list(REMOVE_ITEM folders gov_cli gov_server)

add_library(gpt_oss_vision)  # static unless BUILD_SHARED_LIBS
set(link_libraries "")
foreach(folder ${folders})
  target_sources(gpt_oss_vision PRIVATE $<TARGET_OBJECTS:${folder}>)
  get_target_property(libraries ${folder} LINK_LIBRARIES)
  if(libraries)
    list(APPEND link_libraries ${libraries})
  endif()
endforeach()
list(REMOVE_DUPLICATES link_libraries)
list(FILTER link_libraries EXCLUDE REGEX "^gov_")

# base/error.h includes fmt, base/thread_pool.h needs threads: these reach the users of the headers. The rest is private, and
# libraries found as files are exported by name, so that an installed package does not hold the paths of the build machine.
set(GOV_PACKAGES "")
foreach(library ${link_libraries})
  if(library MATCHES "^([A-Za-z0-9_]+)::")
    set(package ${CMAKE_MATCH_1})
    if(package STREQUAL "CUDA")
      set(package CUDAToolkit)
    endif()
    list(APPEND GOV_PACKAGES ${package})
    find_package(${package} REQUIRED)  # a folder's imported targets are not known outside of it
    if(library MATCHES "^(fmt::fmt|Threads::Threads)$")
      target_link_libraries(gpt_oss_vision PUBLIC ${library})
    else()
      target_link_libraries(gpt_oss_vision PRIVATE ${library})
    endif()
  elseif(library MATCHES "^(.*)/lib([^/]+)\\.(so|a|dylib)$")
    target_link_directories(gpt_oss_vision PRIVATE ${CMAKE_MATCH_1})
    target_link_libraries(gpt_oss_vision PRIVATE ${CMAKE_MATCH_2})
  else()
    target_link_libraries(gpt_oss_vision PRIVATE ${library})
  endif()
endforeach()
list(REMOVE_DUPLICATES GOV_PACKAGES)

target_compile_features(gpt_oss_vision PUBLIC cxx_std_20)
set_target_properties(gpt_oss_vision PROPERTIES
  LINKER_LANGUAGE CXX VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
# A file writes "engine/engine.h" as the sources do, or "gpt_oss_vision/engine/engine.h".
target_include_directories(gpt_oss_vision INTERFACE
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/gpt_oss_vision>
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>)
add_library(gpt_oss_vision::gpt_oss_vision ALIAS gpt_oss_vision)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/gpt_oss_vision)
set(program ${CMAKE_INSTALL_BINDIR}/gpt-oss-vision)
set(models_dir ${CMAKE_INSTALL_DATADIR}/gpt-oss-vision/models)
install(TARGETS gpt_oss_vision EXPORT gpt_oss_vision
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/src/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/gpt_oss_vision
  FILES_MATCHING PATTERN "*.h" PATTERN "cli" EXCLUDE PATTERN "server" EXCLUDE PATTERN "scripts" EXCLUDE)
install(EXPORT gpt_oss_vision NAMESPACE gpt_oss_vision:: DESTINATION ${package_dir} FILE gpt_oss_vision-targets.cmake)
configure_package_config_file(
  ${PROJECT_SOURCE_DIR}/cmake/gpt_oss_vision-config.cmake.in ${PROJECT_BINARY_DIR}/gpt_oss_vision-config.cmake
  INSTALL_DESTINATION ${package_dir} PATH_VARS models_dir program)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/gpt_oss_vision-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/gpt_oss_vision-config.cmake ${PROJECT_BINARY_DIR}/gpt_oss_vision-config-version.cmake
  DESTINATION ${package_dir})

if(TARGET gpt-oss-vision)
  install(TARGETS gpt-oss-vision RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/models/ DESTINATION ${models_dir})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
